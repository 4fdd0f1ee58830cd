"""Counts words: a handler of FlowKit that is told what to do line by line."""

import json
import sys


def say(kind, **fields):
    print(json.dumps({"kind": kind, **fields}), flush=True)


def count(batch):
    uid, pages = batch["batch_uid"], batch["payload"]["items"]
    # An earlier attempt may have done a part of this very batch.
    done = batch["checkpoint"] or {"pages": 0, "words": 0}
    words = done["words"]
    for number in range(done["pages"], len(pages)):
        if not isinstance(pages[number], str):
            say("error", code="bad_page", message=f"page {number} is no text", permanent=True)
            return
        words += len(pages[number].split())
        say("checkpoint", batch_uid=uid, value={"pages": number + 1, "words": words})
        say("progress", done=number + 1, total=len(pages))
    say("log", message=f"{words} words in {len(pages)} pages")
    say("result", batch_uid=uid, artifact={"words": words}, metrics={"words": words})


for text in sys.stdin:  # ends with the end of file
    line = json.loads(text)
    if line["kind"] == "batch":
        count(line)
    elif line["kind"] == "finalize":
        words = line["totals"].get("words", {"sum": 0})["sum"]
        say("final", result={"words": words})
    elif line["kind"] == "cancel":
        say("cancelled")
