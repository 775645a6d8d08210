//! Server-sent events, as far as providers use them: the data of each event.

/// The data of each event, lines joined. An event that was cut off at the end of the text is left out.
pub(crate) fn events(text: &str) -> impl Iterator<Item = String> + '_ {
    let mut data: Option<String> = None;
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            // A last line without an end was cut off.
            let end = rest.find('\n')?;
            let line = rest[..end].trim_end_matches('\r');
            rest = &rest[end + 1..];
            if line.is_empty() {
                if let Some(data) = data.take() {
                    return Some(data);
                }
            } else if let Some(value) = line.strip_prefix("data:") {
                let value = value.strip_prefix(' ').unwrap_or(value);
                match &mut data {
                    Some(data) => {
                        data.push('\n');
                        data.push_str(value);
                    }
                    None => data = Some(value.to_owned()),
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_whole_or_not_at_all() {
        let text =
            "event: a\r\ndata: {\"x\":1}\r\n\r\n: comment\n\ndata:1\ndata: 2\n\ndata: [DONE]\n\ndata: {\"cut";
        assert_eq!(events(text).collect::<Vec<_>>(), ["{\"x\":1}", "1\n2", "[DONE]"]);
        assert_eq!(events("").count(), 0);
        assert_eq!(events("data: x\n").count(), 0);
    }
}
