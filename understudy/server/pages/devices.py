"""What a browser says it is, so that people know their sessions apart."""

from understudy.conversation import plain_line

_BROWSERS = {"Edg": "Edge", "OPR": "Opera", "Firefox": "Firefox", "Chrome": "Chrome", "Safari": "Safari"}
"""As they stand in `User-Agent`, those first that also claim to be a later one."""
_SYSTEMS = {
    **{name: name for name in ("Android", "iPhone", "iPad", "Windows")},
    **{"Mac OS X": "macOS", "CrOS": "ChromeOS", "Linux": "Linux"},
}
_CHARACTERS = 60


def device_of(user_agent: str) -> str:
    """A browser and its system as their owner would call them."""
    browser = next((shown for name, shown in _BROWSERS.items() if f"{name}/" in user_agent), "")
    system = next((shown for name, shown in _SYSTEMS.items() if name in user_agent), "")
    found = " on ".join(part for part in (browser, system) if part)
    return found or plain_line(user_agent)[:_CHARACTERS] or "unknown device"
