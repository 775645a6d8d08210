"""What no instrumentation knows, said as CloudEvents: a decision, and what came of it. The standard library is enough."""

import json
import os
import urllib.request

# guide
server = os.environ.get("PRECEDENT_URL", "http://127.0.0.1:7373")
event = {"specversion": "1.0", "id": "d-1", "source": "urn:loans", "type": "ai.decision.made",
         "subject": "application/42", "decisionid": "d-1", "data": {"approve": False}}
headers = {"Content-Type": "application/cloudevents+json"}
urllib.request.urlopen(urllib.request.Request(f"{server}/v1/events", json.dumps(event).encode(), headers))
# end of guide

outcome = event | {"id": "o-1", "type": "ai.outcome.observed", "data": {"repaid": True}}
request = urllib.request.Request(f"{server}/v1/events", json.dumps(outcome).encode(), headers)
print(urllib.request.urlopen(request).read().decode())
