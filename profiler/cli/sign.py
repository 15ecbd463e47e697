"""``aiprof sign``: vouch for the files of a run with an Ed25519 key."""

from __future__ import annotations

from pathlib import Path

import click

from profiler.errors import UsageError


@click.command(short_help="Sign a run with an Ed25519 key, so that others can see who vouches for it.")
@click.argument("run", metavar="RUN", required=False)
@click.option(
    "--key", type=click.Path(path_type=Path), metavar="FILE", help="Private key, PEM or OpenSSH format."
)
@click.option(
    "--new-key",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Make a key: FILE and FILE.pub. `ssh-keygen -t ed25519 -N ''` makes one as well.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(run: str | None, key: Path | None, new_key: Path | None, as_json: bool) -> None:
    """Sign a run that is complete.

    The signature goes into the run (signature.json) and covers every file of it. It proves who
    vouches for the run, not that its figures are true. Send FILE.pub, or the fingerprint, to whoever
    is to check it with `aiprof verify --trusted FILE.pub`; never FILE.
    """
    from profiler.results.signature import new_key as make_key
    from profiler.results.signature import sign_run

    if (new_key is None) == (run is None):
        raise UsageError("give a RUN with --key FILE, or --new-key FILE alone")
    if new_key is not None:
        document = {"key": str(new_key), "public_key": f"{new_key}.pub", "fingerprint": make_key(new_key)}
        text = f"key: {new_key} (keep it to yourself)\npublic key: {new_key}.pub"
    else:
        from profiler.results.find import resolve_run

        if key is None:
            raise UsageError("--key FILE is missing; `aiprof sign --new-key FILE` makes a key")
        path = resolve_run(run or "")
        document = {"run": str(path), "fingerprint": sign_run(path, key).fingerprint}
        text = f"signed: {path}"
    if as_json:
        import json

        click.echo(json.dumps(document, indent=1))
    else:
        click.echo(f"{text}\nfingerprint: {document['fingerprint']}")
