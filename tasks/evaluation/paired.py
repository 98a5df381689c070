"""Two classifiers judged on the same images."""


def mcnemar_p(num_fixed: int, num_broken: int) -> float:
    """Return the p-value of the exact McNemar test of two classifiers on the same images.

    Args:
        num_fixed: Images that only the second has right.
        num_broken: Images that only the first has right.

    Returns:
        Two-sided probability of a split at least as uneven, were both equally good.

    Source:
        McNemar, "Note on the sampling error of the difference between correlated proportions or
        percentages", Psychometrika 12, 1947; as a binomial test of the discordant pairs.
    """
    from scipy.stats import binomtest

    total = num_fixed + num_broken
    return float(binomtest(num_fixed, total).pvalue) if total else 1.0
