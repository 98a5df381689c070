"""The pages of the Prefect UI, as a person uses them: fields are filled in, buttons clicked."""

import json
import time

from tests.browser import LIMIT_S, Browser

NUM_KEPT = 4
"""Looks at a field, in a row, in which it must hold what was written to it."""

FIND = """(() => {{
  const label = [...document.querySelectorAll('.p-label__label')]
    .filter(one => one.innerText.trim() === {label}).pop();
  const field = label && label.closest('.p-label').querySelector('input, textarea');
  if (!field) return false;
  if (field.value === {value}) return 'kept';
  const kind = field.tagName === 'INPUT' ? HTMLInputElement : HTMLTextAreaElement;
  Object.getOwnPropertyDescriptor(kind.prototype, 'value').set.call(field, {value});
  field.dispatchEvent(new Event('input', {{bubbles: true}}));
  field.dispatchEvent(new Event('change', {{bubbles: true}}));
  return 'written';
}})()"""
CLICK = """(() => {{
  const button = [...document.querySelectorAll({kind})]
    .filter(one => one.innerText.trim() === {text} && !one.disabled).pop();
  if (button) button.click();
  return !!button;
}})()"""


def fill(browser: Browser, label: str, value: str) -> None:
    """Write a value into the last field with a label, until it stays there.

    The form is built while it is shown: a field may be built again after it was written to, or
    another with the same label may follow.
    """
    expression = FIND.format(label=json.dumps(label), value=json.dumps(value))
    deadline, num_kept = time.monotonic() + LIMIT_S, 0
    while num_kept < NUM_KEPT:
        assert time.monotonic() < deadline, f"{value} does not stay in the field {label}"
        num_kept = num_kept + 1 if browser.evaluate(expression) == "kept" else 0
        time.sleep(0.2)


def click(browser: Browser, text: str, kind: str = "button, a, [role=tab]") -> None:
    """Click the last button with a text."""
    wait_until(browser, CLICK.format(kind=json.dumps(kind), text=json.dumps(text)))


def wait_until(browser: Browser, expression: str) -> None:
    """Wait until a JavaScript expression comes to something true."""
    deadline = time.monotonic() + LIMIT_S
    while not browser.evaluate(expression):
        assert time.monotonic() < deadline, f"never true on the page: {expression}"
        time.sleep(0.2)
