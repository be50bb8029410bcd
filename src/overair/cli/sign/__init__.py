"""``overair sign``: images, root and targets signed where the server can't reach (Uptane reference §9; docs/signing.md).

One command for one intent. Pure parts (items, edits, draft, sealing, ceremony, known) know no file and no server; the desk
joins them with the tree, the keys and the server's REST.
"""

from __future__ import annotations

import typer

from overair.cli.sign import (
    content_commands,
    image_commands,
    key_commands,
    level_commands,
    push_commands,
    tree_commands,
    trust_commands,
)

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Sign away from the server: images, root and targets.")
app.command()(image_commands.image)
app.command()(trust_commands.trust)
app.command()(tree_commands.init)
app.command()(tree_commands.status)
app.command()(tree_commands.pull)
app.add_typer(key_commands.app, name="keys", help="Keys, and which of them may sign.")
app.command()(key_commands.threshold)
app.command()(key_commands.rotate)
app.command()(level_commands.take_offline)
app.command()(level_commands.bring_online)
app.command()(content_commands.add)
app.command()(content_commands.remove)
app.command()(content_commands.pending)
app.command()(content_commands.delegate)
app.command()(content_commands.renew)
app.command()(content_commands.diff)
app.command()(push_commands.push)
app.command()(push_commands.approve)
app.command()(push_commands.collect)
app.command("verify")(tree_commands.verify_command)
app.command()(tree_commands.backup)
app.command()(tree_commands.restore)
app.command()(tree_commands.discard)
