"""Two calls of OpenAI with a tool between them, recorded by OpenLLMetry, over gRPC.

What it tells goes to http://127.0.0.1:4317, or where OTEL_EXPORTER_OTLP_ENDPOINT says. Needs OPENAI_API_KEY.
"""

import json
import os

# guide
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.openai import OpenAIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

traces = TracerProvider()
traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(insecure=True)))
OpenAIInstrumentor().instrument(tracer_provider=traces)
# end of guide

from openai import NotFoundError, OpenAI

client = OpenAI()
tools = [{"type": "function", "function": {"name": "get_order_details", "description": "Get an order",
          "parameters": {"type": "object", "properties": {"order_id": {"type": "string"}}}}}]
messages = [{"role": "system", "content": "You are a retail agent."},
            {"role": "user", "content": "Where is my order #W2378156?"}]
model = os.environ.get("MODEL", "gpt-4o")
first = client.chat.completions.create(model=model, messages=messages, tools=tools, temperature=0)
call = first.choices[0].message.tool_calls[0]
messages += [{"role": "assistant", "tool_calls": [call.model_dump()]},
             {"role": "tool", "tool_call_id": call.id, "content": json.dumps({"status": "shipped"})}]
answer = ""
for chunk in client.chat.completions.create(model=model, messages=messages, tools=tools, temperature=0, stream=True,
                                            stream_options={"include_usage": True}):
    if chunk.choices:
        answer += chunk.choices[0].delta.content or ""
print(answer)
try:
    client.chat.completions.create(model="no-such-model", messages=messages[:2])
except NotFoundError as error:
    print("refused:", error.status_code)

traces.shutdown()
