"""Saves a checkpoint of each page, and is stuck at the word `stop`."""

import json
import sys


def say(kind, **fields):
    print(json.dumps({"kind": kind, **fields}), flush=True)


pages = 0
for text in sys.stdin:  # ends with its worker
    line = json.loads(text)
    if line["kind"] == "batch" and line["payload"]["items"] != ["stop"]:
        pages += 1
        say("checkpoint", batch_uid=line["batch_uid"], value={"page": pages})
        say("result", batch_uid=line["batch_uid"])
