"""The pages of the Prefect UI, as a person uses them: fields are filled in, buttons clicked."""

import json
import time

from tests.browser import LIMIT_S, Browser

FIND = """(() => {{
  const label = [...document.querySelectorAll('.p-label__label')]
    .filter(one => one.innerText.trim() === {label}).pop();
  const field = label && label.closest('.p-label').querySelector('input, textarea');
  if (!field) return false;
  const kind = field.tagName === 'INPUT' ? HTMLInputElement : HTMLTextAreaElement;
  Object.getOwnPropertyDescriptor(kind.prototype, 'value').set.call(field, {value});
  field.dispatchEvent(new Event('input', {{bubbles: true}}));
  field.dispatchEvent(new Event('change', {{bubbles: true}}));
  return true;
}})()"""
CLICK = """(() => {{
  const button = [...document.querySelectorAll({kind})]
    .filter(one => one.innerText.trim() === {text} && !one.disabled).pop();
  if (button) button.click();
  return !!button;
}})()"""


def fill(browser: Browser, label: str, value: str) -> None:
    """Write a value into the field with a label."""
    wait_until(browser, FIND.format(label=json.dumps(label), value=json.dumps(value)))


def click(browser: Browser, text: str, kind: str = "button, a, [role=tab]") -> None:
    """Click the last button with a text."""
    wait_until(browser, CLICK.format(kind=json.dumps(kind), text=json.dumps(text)))


def wait_until(browser: Browser, expression: str) -> None:
    """Wait until a JavaScript expression comes to something true."""
    deadline = time.monotonic() + LIMIT_S
    while not browser.evaluate(expression):
        assert time.monotonic() < deadline, f"never true on the page: {expression}"
        time.sleep(0.2)
