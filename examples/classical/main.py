"""A classical model: it scores applications, people override some of its decisions, and outcomes come later.

The applications are made up, from a fixed seed. What is recorded of each is what an auditor asks for: the features the model was given, its
score, what was decided by it, and by which version. `precedent show loan-N --at POSITION` shows any of them as it was.
"""

import json
import os
import sys
import urllib.request

import numpy
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

COUNT = int(sys.argv[1]) if len(sys.argv) > 1 else 3000
SERVER = os.environ.get("PRECEDENT_URL", "http://127.0.0.1:7373")
SOURCE = "urn:example:classical"
BATCH = 500


def record(events):
    """Records events in batches, each whole or not at all; answers with the position of each."""
    positions = []
    for at in range(0, len(events), BATCH):
        headers = {"Content-Type": "application/cloudevents-batch+json"}
        if token := os.environ.get("PRECEDENT_TOKEN"):
            headers["Authorization"] = f"Bearer {token}"
        body = json.dumps(events[at:at + BATCH]).encode()
        with urllib.request.urlopen(urllib.request.Request(f"{SERVER}/v1/events", body, headers)) as answer:
            positions += [event["position"] for event in json.load(answer)["events"]]
    return positions


def event(kind, id, data, n=None, tags=None):
    made = {"specversion": "1.0", "id": id, "source": SOURCE, "type": kind, "data": data}
    if n is not None:
        made |= {"subject": f"application/{n}", "decisionid": f"loan-{n}"}
    return made | ({"tags": tags} if tags else {})


random = numpy.random.default_rng(7)
NAMES = ["income", "amount", "months", "age_of_account", "late_payments"]
features = numpy.column_stack([
    random.lognormal(8.1, 0.4, 2 * COUNT), random.lognormal(9.2, 0.6, 2 * COUNT), random.integers(6, 73, 2 * COUNT),
    random.integers(0, 20, 2 * COUNT), random.poisson(0.7, 2 * COUNT)]).round(2)
burden = features[:, 1] / features[:, 2] / features[:, 0]
repays = random.random(2 * COUNT) < 1 / (1 + numpy.exp(4 * burden + 0.8 * features[:, 4] - 2.2 - 0.06 * features[:, 3]))

# The first half teaches the model, the second half applies.
model = make_pipeline(StandardScaler(), LogisticRegression()).fit(features[:COUNT], repays[:COUNT])
features, repays = features[COUNT:], repays[COUNT:]
scores = model.predict_proba(features)[:, 1]
THRESHOLD = 0.6

record([
    event("ai.model.deployed", "risk-7", {"model": "risk", "version": "7", "environment": "production", "approver": "board-3"},
          tags="model=risk"),
    event("ai.policy.published", "credit-2026-10", {"policy": "credit", "version": "2026-10", "threshold": THRESHOLD}, tags="policy=credit"),
])
decided = ["approve" if score >= THRESHOLD else "decline" for score in scores]
record([
    event("ai.decision.made", f"loan-{n}",
          {"decision": decided[n], "score": round(float(score), 6), "threshold": THRESHOLD, "model": "risk", "version": "7",
           "policy": "credit@2026-10", "automated": True, "features": dict(zip(NAMES, features[n].tolist()))},
          n, tags=f"model=risk,decision={decided[n]}")
    for n, score in enumerate(scores)])

# A person looks at what was declined narrowly, and decides otherwise for every third.
narrow = [n for n, score in enumerate(scores) if THRESHOLD - 0.1 <= score < THRESHOLD][::3]
overrides = record([
    event("ai.decision.overridden", f"override-{n}",
          {"from": "decline", "to": "approve", "person": f"officer-{n % 5}", "reason": "income was proved to be higher"}, n)
    for n in narrow])

# Much later it is known what became of the loans that were given.
given = [n for n in range(COUNT) if decided[n] == "approve" or n in set(narrow)]
record([event("ai.outcome.observed", f"outcome-{n}", {"repaid": bool(repays[n]), "label": int(repays[n])}, n) for n in given])

print(json.dumps({"decisions": COUNT, "overridden": len(narrow), "outcomes": len(given),
                  "look_at": f"loan-{narrow[0]}", "overridden_at": overrides[0]}))
