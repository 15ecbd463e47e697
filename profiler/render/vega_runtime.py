"""Vega, Vega-Lite and their loader as one script, for pages whose charts can be zoomed."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor


class VegaRuntime:
    """Bundles the script beside what the process does otherwise: it takes a second, outside of Python."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1)
        self._bundle: Future[str] = self._executor.submit(_bundled)
        self._executor.shutdown(wait=False)

    def script(self) -> str:
        """Return the script, which defines ``vegaEmbed``; waits for it."""
        return self._bundle.result()


def _bundled() -> str:
    import vl_convert

    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    # Inside a script element these would end it or change how it is parsed.
    return bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--") + "\n"
