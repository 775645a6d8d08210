"""An agent of LangGraph with a tool, recorded by OpenInference.

What it tells goes to http://127.0.0.1:4318, or where OTEL_EXPORTER_OTLP_ENDPOINT says. Needs OPENAI_API_KEY.
"""

import os

# guide
from openinference.instrumentation.langchain import LangChainInstrumentor
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

traces = TracerProvider()
traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
LangChainInstrumentor().instrument(tracer_provider=traces)
# end of guide

from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition


@tool
def get_order_details(order_id: str) -> str:
    """Get an order"""
    return '{"status": "shipped"}'


model = ChatOpenAI(model=os.environ.get("MODEL", "gpt-4o"), temperature=0).bind_tools([get_order_details])
graph = StateGraph(MessagesState)
graph.add_node("agent", lambda state: {"messages": [model.invoke(state["messages"])]})
graph.add_node("tools", ToolNode([get_order_details]))
graph.add_edge(START, "agent")
graph.add_conditional_edges("agent", tools_condition)
graph.add_edge("tools", "agent")
asked = [SystemMessage("You are a retail agent."), HumanMessage("Where is my order #W2378156?")]
print(graph.compile().invoke({"messages": asked})["messages"][-1].content)
traces.shutdown()
