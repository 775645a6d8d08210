//! `GET /openapi.json`: the interface for programs, made from the table of routes.

use axum::http::Method;
use serde_json::{Map, Value, json as value};

use super::{Answer, Kind, ROUTES, Route, Scope, json};
use crate::call::Call;
use crate::problem::{CODES, Written};

pub(super) const ROUTE: Route = Route {
    method: Method::GET,
    scope: Scope::Root,
    path: "/openapi.json",
    id: "openapi",
    about: "This document.",
    parameters: &[],
    headers: &[],
    takes: &[],
    status: 200,
    gives: &["application/json"],
    problems: &[],
    handle: |call| Box::pin(handle(call)),
};

async fn handle(_call: Call) -> Answer {
    Ok(json(200, &document()))
}

/// Problems that every route can have.
const ANYWHERE: [&str; 12] = [
    "invalid",
    "limit_exceeded",
    "not_found",
    "unauthorized",
    "forbidden_origin",
    "misdirected",
    "overloaded",
    "unavailable",
    "stopped",
    "locked",
    "io",
    "internal",
];

/// The document.
pub(super) fn document() -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        for path in route.paths() {
            let entry = paths.entry(path.clone()).or_insert_with(|| value!({}));
            entry[route.method.as_str().to_ascii_lowercase()] = operation(route, &path);
        }
    }
    value!({
        "openapi": "3.1.0",
        "info": {
            "title": "Precedent",
            "summary": "The event store for AI models and agents",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": schemas(),
        },
    })
}

fn operation(route: &Route, path: &str) -> Value {
    let mut parameters = Vec::new();
    for part in path.split('/') {
        if let Some(name) = part.strip_prefix('{').and_then(|p| p.strip_suffix('}')) {
            let schema = if name == "position" { schema_of(Kind::Number) } else { schema_of(Kind::Text) };
            parameters.push(value!({"name": name, "in": "path", "required": true, "schema": schema}));
        }
    }
    for parameter in route.parameters {
        parameters.push(value!({
            "name": parameter.name,
            "in": "query",
            "required": route.id == "readFrames" && parameter.name == "from",
            "description": parameter.about,
            "schema": schema_of(parameter.kind),
        }));
    }
    // OpenAPI has Accept and Content-Type elsewhere and says that they are to be left out here.
    for header in route.headers.iter().filter(|h| h.name != "Accept") {
        parameters.push(value!({
            "name": header.name,
            "in": "header",
            "description": header.about,
            "schema": {"type": "string"},
        }));
    }
    let mut responses = Map::new();
    let content: Map<String, Value> = route
        .gives
        .iter()
        .map(|gives| ((*gives).to_owned(), value!({"schema": answer_schema(route, gives)})))
        .collect();
    let success = value!({"description": route.about, "content": content});
    if route.id == "setRegister" {
        responses.insert("201".to_owned(), success.clone());
    }
    responses.insert(route.status.to_string(), success);
    for row in CODES {
        if ANYWHERE.contains(&row.code) || route.problems.contains(&row.code) {
            let response = responses.entry(row.status.to_string()).or_insert_with(|| {
                value!({
                    "description": "",
                    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
                })
            });
            let before = response["description"].as_str().unwrap_or("");
            let joined = if before.is_empty() { String::new() } else { format!("{before}; ") };
            response["description"] = format!("{joined}`{}`: {}", row.code, row.title).into();
        }
    }
    let mut operation = value!({
        "operationId": if path.contains("{log}") { format!("{}InLog", route.id) } else { route.id.to_owned() },
        "summary": route.about,
        "parameters": parameters,
        "responses": responses,
    });
    if route.scope != Scope::Root || route.id != "health" {
        // With or without: a server on loopback may have no token.
        operation["security"] = value!([{"token": []}, {}]);
    }
    if !route.takes.is_empty() {
        let content: Map<String, Value> = route
            .takes
            .iter()
            .map(|takes| ((*takes).to_owned(), value!({"schema": request_schema(route, takes)})))
            .collect();
        operation["requestBody"] = value!({"required": true, "content": content});
    }
    operation
}

fn reference(name: &str) -> Value {
    value!({ "$ref": format!("#/components/schemas/{name}") })
}

fn schema_of(kind: Kind) -> Value {
    match kind {
        Kind::Text => value!({"type": "string"}),
        Kind::Texts => value!({"type": "array", "items": {"type": "string"}}),
        Kind::Number => value!({"type": "integer", "format": "int64", "minimum": 0}),
        Kind::UpTo(max) => value!({"type": "integer", "format": "int64", "minimum": 0, "maximum": max}),
        Kind::Positive => value!({"type": "integer", "format": "int64", "minimum": 1}),
        Kind::Tags => value!({"type": "array", "items": {"type": "string", "pattern": "^[^=]+=[\\s\\S]+$"}}),
        Kind::Flag => value!({"type": "boolean"}),
        Kind::Time => value!({"type": "string", "format": "date-time"}),
    }
}

fn request_schema(route: &Route, takes: &str) -> Value {
    match (route.id, takes) {
        ("append", "application/json") => reference("Append"),
        // OpenAPI 3.1 describes a line.
        ("appends", "application/x-ndjson") => reference("Append"),
        ("query", _) => reference("Query"),
        (_, "application/cloudevents+json") => reference("CloudEvent"),
        (_, "application/cloudevents-batch+json") => {
            value!({"type": "array", "items": reference("CloudEvent")})
        }
        _ => value!({}),
    }
}

fn answer_schema(route: &Route, gives: &str) -> Value {
    match (route.id, gives) {
        ("append" | "publish", _) => reference("Appended"),
        ("appends", _) => value!({"anyOf": [reference("Appended"), reference("Problem")]}),
        ("head" | "putFrames" | "promote", _) => reference("Head"),
        ("read" | "query", "application/json") => reference("Page"),
        ("read" | "query", "application/cloudevents-batch+json") => {
            value!({"type": "array", "items": reference("CloudEvent")})
        }
        ("readEvent", "application/json") => reference("Event"),
        ("readEvent", _) => reference("CloudEvent"),
        ("doctor", _) => reference("Examination"),
        ("logs", _) => {
            value!({"type": "object", "required": ["logs"], "properties": {"logs": {"type": "array", "items": {"type": "string"}}}})
        }
        ("limits", _) => reference("Limits"),
        ("setRegister", _) => {
            value!({"type": "object", "required": ["revision"], "properties": {"revision": schema_of(Kind::Number)}})
        }
        (_, "application/json") => value!({"type": "object"}),
        _ => value!({}),
    }
}

fn schemas() -> Value {
    let number = schema_of(Kind::Number);
    let text = schema_of(Kind::Text);
    let texts = schema_of(Kind::Texts);
    let maybe = |kind: &str| value!({"type": [kind, "null"]});
    let count_names = [
        "data_bytes_max",
        "frame_bytes_max",
        "batch_events_max",
        "entry_bytes_max",
        "name_bytes_max",
        "source_bytes_max",
        "tag_bytes_max",
        "tags_max",
        "attribute_name_bytes_max",
        "conditions_max",
        "query_items_max",
        "query_terms_max",
        "register_bytes_max",
        "request_bytes_max",
    ];
    let mut limits: Map<String, Value> =
        count_names.iter().map(|name| ((*name).to_owned(), number.clone())).collect();
    limits.insert("durability".into(), value!({"enum": ["none", "device", "region_quorum"]}));
    let codes: Vec<&str> = CODES.iter().map(|row| row.code).collect();
    let table: Map<String, Value> = CODES
        .iter()
        .map(|row| {
            let written = match row.written {
                Written::No => "no",
                Written::Maybe => "maybe",
                Written::Said => "as the problem says",
            };
            let row_value = value!({
                "status": row.status, "title": row.title, "retryable": row.retryable, "written": written,
            });
            (row.code.to_owned(), row_value)
        })
        .collect();
    value!({
        "CloudEvent": {
            "type": "object",
            "description": "A CloudEvents 1.0 event. What the log added is `position`, `version`, `recordedtime`, `leafhash` and `precedentlog`.",
            "required": ["specversion", "id", "source", "type"],
            "properties": {
                "specversion": {"const": "1.0"}, "id": text, "source": text, "type": text, "subject": text,
                "time": schema_of(Kind::Time), "datacontenttype": text, "dataschema": text, "tags": text,
                "data": {}, "data_base64": text, "position": text, "version": text,
                "recordedtime": schema_of(Kind::Time), "leafhash": text, "precedentlog": text,
            },
            "additionalProperties": {"type": ["string", "integer", "boolean"]},
        },
        "Event": {
            "type": "object",
            "description": "The native shape: positions are numbers and tags a list.",
            "required": ["id", "source", "type"],
            "properties": {
                "id": text, "source": text, "type": text, "stream": text, "time": schema_of(Kind::Time),
                "datacontenttype": text, "dataschema": text, "tags": texts, "data": {}, "data_base64": text,
                "position": number, "version": number, "recordedtime": schema_of(Kind::Time),
                "leafhash": text, "precedentlog": text,
            },
            "additionalProperties": {"type": ["string", "integer", "boolean"]},
        },
        "QueryItem": {
            "type": "object",
            "description": "Types are alternatives, tags and attributes add up.",
            "properties": {
                "types": texts, "tags": schema_of(Kind::Tags), "stream": text, "decisionid": text, "correlationid": text,
                "causationid": text, "traceid": text,
            },
            "additionalProperties": false,
        },
        "Query": {
            "type": "object",
            "properties": {
                "items": {"type": "array", "items": reference("QueryItem")},
                "after": number, "before": number, "since": schema_of(Kind::Time),
                "until": schema_of(Kind::Time), "by": {"enum": ["recordedtime", "time"]},
                "backward": schema_of(Kind::Flag), "limit": schema_of(Kind::Positive), "follow": schema_of(Kind::Flag),
                "at_least": number,
            },
            "additionalProperties": false,
        },
        "Condition": {
            "oneOf": [
                {
                    "type": "object",
                    "required": ["stream", "version"],
                    "properties": {"stream": text, "version": {"oneOf": [{"enum": ["any", "none"]}, number]}},
                    "additionalProperties": false,
                },
                {
                    "type": "object",
                    "required": ["fail_if"],
                    "properties": {
                        "fail_if": {
                            "type": "object",
                            "required": ["items"],
                            "properties": {"items": {"type": "array", "items": reference("QueryItem")}},
                            "additionalProperties": false,
                        },
                        "after": number,
                    },
                    "additionalProperties": false,
                },
            ],
        },
        "Append": {
            "type": "object",
            "required": ["events"],
            "properties": {
                "events": {"type": "array", "minItems": 1, "items": reference("Event")},
                "conditions": {"type": "array", "items": reference("Condition")},
            },
            "additionalProperties": false,
        },
        "Appended": {
            "type": "object",
            "required": ["events", "size"],
            "properties": {
                "events": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["position", "version", "status"],
                        "properties": {
                            "position": number, "version": maybe("integer"),
                            "status": {"enum": ["recorded", "existing"]},
                        },
                    },
                },
                "size": number,
            },
        },
        "Page": {
            "type": "object",
            "required": ["events", "next", "size", "damaged"],
            "properties": {
                "events": {"type": "array", "items": reference("Event")},
                "next": maybe("integer"),
                "size": number,
                "damaged": {
                    "type": "array",
                    "items": {"type": "object", "properties": {"position": number, "detail": text}},
                },
            },
        },
        "Head": {
            "type": "object",
            "required": ["log", "id", "size", "root", "frames", "recordedtime"],
            "properties": {
                "log": text, "id": maybe("string"), "size": number, "root": text, "frames": number,
                "recordedtime": maybe("string"),
            },
        },
        "Limits": {"type": "object", "properties": limits},
        "Examination": {
            "type": "object",
            "properties": {
                "store": text, "log": text, "events": number, "data_bytes": number, "log_bytes": number,
                "index_bytes": number,
                "findings": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {"code": text, "severity": {"enum": ["info", "warning", "error"]}, "message": text},
                    },
                },
            },
        },
        "Problem": {
            "type": "object",
            "description": "RFC 9457. The code decides the status, whether a retry makes sense, and whether anything may have been written.",
            "required": ["type", "title", "status", "detail", "code", "retryable", "may_have_been_written", "conflicts"],
            "properties": {
                "type": text, "title": text, "status": {"type": "integer"}, "detail": text,
                "code": {"enum": codes}, "retryable": schema_of(Kind::Flag),
                "may_have_been_written": schema_of(Kind::Flag),
                "conflicts": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["index", "position"],
                        "properties": {"index": number, "position": maybe("integer")},
                    },
                },
            },
            "x-codes": table,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_and_every_code_of_a_route_exists() {
        let document = document();
        let text = document.to_string();
        for part in text.split("#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(document["components"]["schemas"].get(name).is_some(), "{name}");
        }
        for route in ROUTES {
            for code in route.problems.iter().chain(&ANYWHERE) {
                assert!(CODES.iter().any(|row| row.code == *code), "{}: {code}", route.id);
            }
        }
    }

    #[test]
    fn operations_have_names_of_their_own() {
        let document = document();
        let mut names = Vec::new();
        for (_, path) in document["paths"].as_object().unwrap() {
            for (_, operation) in path.as_object().unwrap() {
                names.push(operation["operationId"].as_str().unwrap().to_owned());
            }
        }
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
