"""What a ranking concludes, and how candidates and cuts are chosen."""

from typing import Any

import keras
import pytest

from headstart.config import BackboneConfig, CandidatesConfig, RankConfig, build_config
from headstart.errors import BackboneError, ConfigError
from headstart.tasks.backbones.backbone import Backbone, load_backbone
from headstart.tasks.backbones.natural_cuts import natural_cuts
from headstart.tasks.ranking.candidates import backbones_at_hand, choose_cuts, parse_cuts
from headstart.tasks.ranking.stage import SCORES
from headstart.tasks.ranking.verdict import Candidate, Verdict, draw_verdict
from headstart.tasks.running.stage import Outcome


def candidate(name: str, accuracy: float, **fields: Any) -> Candidate:
    scores = dict.fromkeys(SCORES, accuracy)
    values = {
        "backbone": name,
        "cut": "top",
        "num_features": 4,
        "bytes_per_image": 8,
        "flops": 10,
        "scores": scores,
        "figure": accuracy,
        "interval": (accuracy - 0.01, accuracy + 0.01),
        "epochs": 2,
        "cached_s": 1.0,
        "transfer_s": 5.0,
        "uncached_s": 100.0,
        **fields,
    }
    return Candidate.model_validate(values)


def verdict(*candidates: Candidate, baseline: tuple[float, float] | None = None) -> Verdict:
    outcomes = [
        Outcome(name="bottlenecks", status="hit", seconds=1.0, seconds_saved=9.0, made_s=10.0),
        Outcome(name="head", status="miss", seconds=4.0, made_s=4.0),
    ]
    return draw_verdict("test", candidates, [], outcomes, baseline)


def test_the_pick_is_the_most_accurate_and_of_equals_the_cheapest() -> None:
    made = verdict(
        candidate("dear", 0.9, flops=20), candidate("cheap", 0.9, flops=5), candidate("bad", 0.5)
    )
    assert made.pick == "cheap:top"
    assert [one.backbone for one in made.candidates] == ["cheap", "dear", "bad"]


def test_each_score_has_its_agreement_and_its_choice() -> None:
    upside_down = dict.fromkeys(SCORES, 0.0)
    made = verdict(
        candidate("a", 0.9),
        candidate("b", 0.8),
        candidate("c", 0.7, scores={**dict.fromkeys(SCORES, 0.7), "leep": None, "nce": 5.0}),
        candidate("d", 0.6, scores={**upside_down, "leep": 9.0, "nce": None}),
    )
    assert made.agreement["logme"] == pytest.approx(1.0)
    assert made.choices["logme"] == "a:top"
    assert made.choices["nce"] == "c:top"
    assert made.choices["leep"] == "d:top"
    assert made.agreement["leep"] is not None
    assert made.agreement["leep"] < 0.5


def test_seconds_saved_are_those_against_an_empty_store() -> None:
    made = verdict(candidate("a", 0.9), candidate("b", 0.8))
    assert made.ranking_s == pytest.approx(14.0)
    assert made.seconds_saved == pytest.approx(200.0 - 14.0)
    assert made.ranked_from == "from an empty store"


def test_what_was_in_the_store_already_is_estimated_and_said() -> None:
    def ranked(*shares: float) -> Verdict:
        outcomes = [
            Outcome(name="views", status="miss", made_s=3.0, share_computed=share)
            for share in shares
        ]
        return draw_verdict("test", [candidate("a", 0.9)], [], outcomes, None)

    scaled = ranked(1.0, 0.1)
    assert scaled.ranking_s == pytest.approx(3.0 + 30.0)
    assert scaled.ranked_from == "from an empty store, extrapolated from the rows that were missing"
    unknown = ranked(0.5, 0.0)
    assert unknown.ranking_s == pytest.approx(6.0 + 3.0)
    assert unknown.ranked_from == "not counting rows that were in the store already"


def test_negative_transfer_is_warned_of() -> None:
    worse = verdict(candidate("a", 0.6), baseline=(0.7, 5.0)).warnings[0]
    assert "Negative transfer: a small network from scratch reached 70.0% in 5 s (as long" in worse
    near = verdict(candidate("a", 0.6), baseline=(0.595, 5.0))
    assert "not clearly better" in near.warnings[0]
    assert verdict(candidate("a", 0.9), baseline=(0.5, 5.0)).warnings == ()


def test_a_baseline_that_was_cut_short_is_said_to_be() -> None:
    long = candidate("a", 0.6, transfer_s=1500.0)
    worse = verdict(long, baseline=(0.7, 120.0)).warnings[0]
    assert "reached 70.0% in 120 s (the transfer took 1,500 s)" in worse
    near = verdict(long, baseline=(0.595, 0.5)).warnings[0]
    assert "from scratch (59.5% in 0.5 s; the transfer took 1,500 s)" in near


def test_a_score_chooses_among_equals_without_seeing_the_accuracy() -> None:
    tied = dict.fromkeys(SCORES, 0.7)
    made = verdict(
        candidate("dear", 0.9, flops=20, scores=tied),
        candidate("cheap", 0.8, flops=5, scores=tied),
        candidate("also", 0.7, flops=5, scores=tied),
    )
    assert set(made.choices.values()) == {"also:top"}
    unknown = candidate("a", 0.9, scores=dict.fromkeys(SCORES, None))
    assert set(verdict(unknown).choices.values()) == {None}


def test_candidates_that_cannot_be_told_from_the_pick_are_named() -> None:
    made = verdict(candidate("a", 0.9), candidate("b", 0.895), candidate("c", 0.5))
    assert made.warnings[1:] == (
        "1 other candidate lies within the interval of the pick's accuracy: b:top.",
    )


def test_the_best_of_several_is_said_to_be_chosen_by_what_it_is_judged_on() -> None:
    made = verdict(candidate("a", 0.9), candidate("b", 0.5))
    assert "chosen by these test images" in made.warnings[0]
    assert verdict(candidate("a", 0.9)).warnings == ()


@pytest.fixture(scope="module")
def network() -> Backbone:
    return load_backbone(BackboneConfig(name="efficientnet_lite0", weights="random"), 64)


def test_natural_cuts_are_the_last_of_each_resolution(network: Backbone) -> None:
    cuts = natural_cuts(network)
    assert [cut.name for cut in cuts] == [
        "block1a_project_bn",
        "block2b_add",
        "block3b_add",
        "block5c_add",
        "block7a_project_bn",
        "top",
    ]


def test_natural_cuts_leave_out_what_averages_to_the_top() -> None:
    with keras.StatelessScope(initialize_variables=False):
        loaded = load_backbone(BackboneConfig(name="resnet50", weights="random"), 64)
    assert [cut.name for cut in natural_cuts(loaded)][-2:] == ["conv5_block2_out", "top"]


def test_cuts_are_chosen_by_name_for_each_backbone_or_for_one(network: Backbone) -> None:
    config = CandidatesConfig(cuts=("top", "efficientnet_lite0:block3b_add", "no_such_layer"))
    requests = parse_cuts(config, ("efficientnet_lite0",))
    chosen = [cut.name for cut in choose_cuts(network, requests, 2)]
    assert chosen == ["block3b_add", "top"]


def test_natural_takes_as_many_resolutions_as_asked_for(network: Backbone) -> None:
    requests = parse_cuts(CandidatesConfig(), ("efficientnet_lite0",))
    assert [cut.name for cut in choose_cuts(network, requests, 1)] == ["block7a_project_bn", "top"]
    assert [cut.name for cut in choose_cuts(network, requests, 0)] == ["top"]


def test_a_cut_that_no_backbone_has_is_refused(network: Backbone) -> None:
    requests = parse_cuts(CandidatesConfig(cuts=("nowhere",)), ("efficientnet_lite0",))
    with pytest.raises(BackboneError, match="nowhere"):
        choose_cuts(network, requests, 2)
    requests = parse_cuts(
        CandidatesConfig(cuts=("efficientnet_lite0:nowhere",)), ("efficientnet_lite0",)
    )
    with pytest.raises(BackboneError, match="did you mean"):
        choose_cuts(network, requests, 2)


def test_a_cut_of_a_backbone_that_is_not_compared_is_refused() -> None:
    with pytest.raises(ConfigError, match="vgg16"):
        parse_cuts(CandidatesConfig(cuts=("vgg16:block5_pool",)), ("efficientnet_lite0",))


def test_cuts_are_the_candidates_business() -> None:
    with pytest.raises(ConfigError, match=r"candidates\.cuts"):
        build_config(RankConfig, "images", overrides={"bottlenecks.cut": "block3b_add"})


def test_the_default_backbone_is_at_hand() -> None:
    assert backbones_at_hand()[0] == "efficientnet_lite0"
