//! Spans as the bytes of an OTLP request, written here.
//!
//! A request is made once, before any clock runs, and the same bytes go to every server. Only what these spans need of
//! OTLP 1.x is here (`opentelemetry/proto/collector/trace/v1/trace_service.proto` and what it names); the numbers are
//! those of its fields. A test has the official definitions read them back.

/// One finished call of a model.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Span {
    pub(super) trace_id: [u8; 16],
    pub(super) span_id: [u8; 8],
    pub(super) name: String,
    /// Nanoseconds since 1970.
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) attributes: Vec<(&'static str, Value)>,
}

/// What an attribute is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Text(String),
    Texts(Vec<String>),
}

/// `SPAN_KIND_CLIENT`: whoever calls a model is its client.
const KIND_CLIENT: u64 = 3;

/// An `ExportTraceServiceRequest` of one resource and one scope. The spans are encoded already, by [`encoded`].
pub(super) fn request<'a>(service: &str, scope: &str, spans: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut resource = Message::default();
    resource.message(1, &attribute("service.name", &Value::Text(service.to_owned())));
    let mut named = Message::default();
    named.bytes(1, scope.as_bytes());
    let mut scoped = Message::default();
    scoped.message(1, &named);
    for span in spans {
        scoped.bytes(2, span);
    }
    let mut of_resource = Message::default();
    of_resource.message(1, &resource);
    of_resource.message(2, &scoped);
    let mut request = Message::default();
    request.message(1, &of_resource);
    request.0
}

/// The bytes of one span.
pub(super) fn encoded(span: &Span) -> Vec<u8> {
    let mut message = Message::default();
    message.bytes(1, &span.trace_id);
    message.bytes(2, &span.span_id);
    message.bytes(5, span.name.as_bytes());
    message.varint(6, KIND_CLIENT);
    message.fixed64(7, span.start);
    message.fixed64(8, span.end);
    for (name, value) in &span.attributes {
        message.message(9, &attribute(name, value));
    }
    message.0
}

fn attribute(name: &str, value: &Value) -> Message {
    let mut message = Message::default();
    message.bytes(1, name.as_bytes());
    message.message(2, &any(value));
    message
}

fn any(value: &Value) -> Message {
    let text = |text: &str| {
        let mut any = Message::default();
        any.bytes(1, text.as_bytes());
        any
    };
    match value {
        Value::Text(one) => text(one),
        Value::Texts(several) => {
            let mut array = Message::default();
            for one in several {
                array.message(1, &text(one));
            }
            let mut any = Message::default();
            any.message(5, &array);
            any
        }
    }
}

/// A protobuf message as it grows. A field is its number and wire type, then its value.
#[derive(Debug, Default)]
struct Message(Vec<u8>);

impl Message {
    fn key(&mut self, field: u64, wire_type: u64) {
        self.number(field << 3 | wire_type);
    }

    /// Seven bits a byte, the lowest first; all bytes but the last have the highest bit set.
    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn varint(&mut self, field: u64, number: u64) {
        self.key(field, 0);
        self.number(number);
    }

    fn fixed64(&mut self, field: u64, number: u64) {
        self.key(field, 1);
        self.0.extend(number.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.key(field, 2);
        self.number(bytes.len() as u64);
        self.0.extend(bytes);
    }

    fn message(&mut self, field: u64, message: &Self) {
        self.bytes(field, &message.0);
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
    use prost::Message as _;

    use super::*;

    fn text(any: Option<&AnyValue>) -> &str {
        match any.and_then(|any| any.value.as_ref()) {
            Some(any_value::Value::StringValue(text)) => text,
            other => panic!("not a text: {other:?}"),
        }
    }

    fn texts(any: Option<&AnyValue>) -> Vec<&str> {
        match any.and_then(|any| any.value.as_ref()) {
            Some(any_value::Value::ArrayValue(array)) => {
                array.values.iter().map(|any| text(Some(any))).collect()
            }
            other => panic!("not an array: {other:?}"),
        }
    }

    #[test]
    fn the_official_definitions_read_what_was_written() {
        // Lengths on both sides of the borders of one, two and three bytes of a varint, and text that is not ASCII.
        let long = "ein Flug nach Zürich – 東京, ".repeat(1_000);
        let spans: Vec<Span> = [0_usize, 1, 127, 128, 16_383, 16_384, long.len() - 1]
            .iter()
            .enumerate()
            .map(|(at, &length)| {
                let end = (length..).find(|&at| long.is_char_boundary(at)).unwrap();
                Span {
                    trace_id: [at as u8; 16],
                    span_id: [0xf0 | at as u8; 8],
                    name: format!("chat model-{at}"),
                    start: u64::MAX - at as u64,
                    end: 1_790_000_000_000_000_000 + at as u64,
                    attributes: vec![
                        ("gen_ai.operation.name", Value::Text("chat".into())),
                        ("gen_ai.input.messages", Value::Text(long[..end].to_owned())),
                        ("gen_ai.response.finish_reasons", Value::Texts(vec!["stop".into(), String::new()])),
                    ],
                }
            })
            .collect();
        let bytes: Vec<Vec<u8>> = spans.iter().map(encoded).collect();
        let bytes = request("airline", "a scope", bytes.iter().map(Vec::as_slice));
        let read = ExportTraceServiceRequest::decode(bytes.as_slice()).unwrap();

        let [of_resource] = read.resource_spans.as_slice() else { panic!("one resource") };
        let resource: Vec<&KeyValue> = of_resource.resource.iter().flat_map(|r| &r.attributes).collect();
        assert_eq!((resource.len(), resource[0].key.as_str()), (1, "service.name"));
        assert_eq!(text(resource[0].value.as_ref()), "airline");
        let [scoped] = of_resource.scope_spans.as_slice() else { panic!("one scope") };
        assert_eq!(scoped.scope.as_ref().unwrap().name, "a scope");
        assert_eq!(scoped.spans.len(), spans.len());
        for (read, sent) in scoped.spans.iter().zip(&spans) {
            assert_eq!(read.trace_id, sent.trace_id);
            assert_eq!(read.span_id, sent.span_id);
            assert_eq!(read.name, sent.name);
            assert_eq!(read.kind as u64, KIND_CLIENT);
            assert_eq!((read.start_time_unix_nano, read.end_time_unix_nano), (sent.start, sent.end));
            let attributes: Vec<_> = read.attributes.iter().map(|kv| (&kv.key, kv.value.as_ref())).collect();
            assert_eq!(attributes.len(), sent.attributes.len());
            for ((key, read), (name, sent)) in attributes.into_iter().zip(&sent.attributes) {
                assert_eq!(key, name);
                match sent {
                    Value::Text(sent) => assert_eq!(text(read), sent),
                    Value::Texts(sent) => assert_eq!(&texts(read), sent),
                }
            }
        }
        // Nothing was written that the definitions do not know: read and written again it is as long.
        assert_eq!(read.encoded_len(), bytes.len());
    }
}
