"""Starts Triton on a copy of the model repository (links, no data) whose models batch dynamically.

Runs inside the model server's container, with nothing but Python's library: settings in JSON first, then the command
that the ServingRuntime gives. Triton has no flag that overrides a model's configuration when it loads the model.
"""

import json
import os
import re
import sys

MODELS, LINKS = "/mnt/models", "/mnt/batching-models"
ENTRYPOINT = "/opt/nvidia/nvidia_entrypoint.sh"
TOKEN = re.compile(r"""\s+|#[^\n]*|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[-+.\w]+|.""", re.DOTALL)


def fields(text):
    """Each field at the top of a protobuf text: its name, where it starts, where it ends."""
    name, start, depth = None, 0, 0
    for match in TOKEN.finditer(text):
        word = match.group()
        if word.isspace() or word[0] == "#" or (name is None and word[0] in ",;\"'") or (depth == 0 and word == ":"):
            continue
        if name is None:
            name, start = word, match.start()
            continue
        depth += (word in "{[<") - (word in ">]}")
        if depth == 0:
            yield name, start, match.end()
            name = None


def merged(text, settings):
    """A model's configuration with the settings in it; ensembles and sequence models don't batch: left alone."""
    found = list(fields(text))
    names = {name for name, _, _ in found}
    if names & {"ensemble_scheduling", "sequence_batching"}:
        return text
    size = settings.get("max_batch_size")
    if size is None and "max_batch_size" not in names:
        size = max(settings["preferred_batch_size"])
    dropped = {"dynamic_batching"} | ({"max_batch_size"} if size else set())
    for name, start, end in reversed(found):
        if name in dropped:
            text = text[:start] + text[end:]
    lines = [text.rstrip(), f"max_batch_size: {size}" if size else ""]
    wanted = ("preferred_batch_size", "max_queue_delay_microseconds")
    lines.append("dynamic_batching { " + " ".join(f"{name}: {settings[name]}" for name in wanted) + " }")
    return "\n".join(filter(None, lines)) + "\n"


def link(models, links, settings):
    """A folder of links for each model of the repository, with a configuration of its own."""
    for model in sorted(os.listdir(models)):
        source, target = os.path.join(models, model), os.path.join(links, model)
        if model.startswith(".") or not os.path.isdir(source):
            continue
        os.makedirs(target, exist_ok=True)
        for entry in os.listdir(source):
            place = os.path.join(target, entry)
            if entry != "config.pbtxt" and not os.path.lexists(place):
                os.symlink(os.path.join(source, entry), place)
        given = os.path.join(source, "config.pbtxt")
        text = ""
        if os.path.exists(given):
            with open(given) as file:
                text = file.read()
        with open(os.path.join(target, "config.pbtxt"), "w") as file:
            file.write(merged(text, settings))
        print(f"{target}/config.pbtxt asks for dynamic batching", flush=True)


def main(settings, *command):
    """Make the links, then become the command, which reads them in the place of the models."""
    link(MODELS, LINKS, json.loads(settings))
    command = [word.replace(MODELS, LINKS) for word in command]
    if os.path.exists(ENTRYPOINT):
        command.insert(0, ENTRYPOINT)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
