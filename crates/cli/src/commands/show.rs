//! `show`: the record of a decision, as it is now or as it was.

use precedent_decisions::story::{Line, Scene, Tone};
use precedent_decisions::{Ask, At, Bounds, By, Record, Shown, show};

use crate::failure::{Failure, Result};
use crate::global::Global;
use crate::output::{Output, has_colours, say};
use crate::text::{counted, escaped, grouped};

/// What, and as it was when.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A decision, a trace, a stream, or the position of an event
    #[arg(value_name = "DECISION|TRACE|STREAM|POSITION")]
    what: String,
    /// What of these it is, where it could be several: decision, correlation, trace, stream or position
    #[arg(long = "as", value_name = "WHAT")]
    by: Option<By>,
    /// As it was when this position had been recorded, or at this time in RFC 3339: nothing later is shown
    #[arg(long, value_name = "POSITION|TIME", allow_hyphen_values = true)]
    at: Option<At>,
    /// Everything: long texts whole, definitions of tools, ids and attributes of events
    #[arg(long)]
    full: bool,
}

/// Characters and lines of a text that are shown of it, unless everything is asked for.
const CHARS_MAX: usize = 1_200;
const LINES_MAX: usize = 24;

pub(crate) async fn run(args: Args, global: Global) -> Result<()> {
    let log = global.log().await?;
    let ask = Ask { what: args.what, by: args.by, at: args.at, bounds: Bounds::default() };
    let shown = show(&log, &ask).await.map_err(|error| {
        let ambiguous = error.message().contains("say as which");
        let failure = Failure::from(error);
        match ambiguous {
            true => failure.hint("--as position, or --as with the other"),
            false => failure,
        }
    })?;
    let record = match shown {
        Shown::Record(record) => record,
        Shown::Nothing(nothing) => {
            for one in &nothing.unreadable {
                say(format_args!("damaged: {}", escaped(&one.detail)));
            }
            if global.json {
                let mut out = Output::stdout();
                out.json(&serde_json::json!({"nothing": nothing.message, "unreadable": nothing.unreadable}))?;
                out.flush()?;
            }
            say(format_args!("{}", escaped(&nothing.message)));
            return Err(Failure::no());
        }
    };
    let mut out = Output::stdout();
    match global.json {
        true => out.json(&record)?,
        false => Paper::new(&record, args.full).record(&record, &mut out)?,
    }
    out.flush()?;
    match record.unreadable.len() {
        0 => Ok(()),
        n => Err(Failure::new(format!("{} could not be read", counted(n as u64, "damaged event")))),
    }
}

/// How it is printed.
struct Paper {
    full: bool,
    /// Columns of the position.
    width: usize,
    bold: &'static str,
    dim: &'static str,
    warn: &'static str,
    plain: &'static str,
}

/// Columns of the labels.
const LABEL: usize = 10;

impl Paper {
    fn new(record: &Record, full: bool) -> Self {
        let width = record.as_of.position.to_string().len().max(4);
        match has_colours() {
            true => Self {
                full,
                width,
                bold: "\u{1b}[1m",
                dim: "\u{1b}[2m",
                warn: "\u{1b}[33m",
                plain: "\u{1b}[0m",
            },
            false => Self { full, width, bold: "", dim: "", warn: "", plain: "" },
        }
    }

    fn record(&self, record: &Record, out: &mut Output) -> Result<()> {
        let (bold, dim, plain) = (self.bold, self.dim, self.plain);
        let moment = match record.as_of.asked {
            true => format!("as it was at position {}", record.as_of.position),
            false => format!("up to position {}", record.as_of.position),
        };
        let opened = match record.opened {
            Some(position) => format!(" (of the event at {position})"),
            None => String::new(),
        };
        out.line(format!(
            "{bold}{} {}{plain}{opened} {dim}in log {}, {moment}{plain}",
            record.key.by,
            escaped(&record.key.value),
            record.log
        ))?;
        let story = record.story();
        for line in story.head {
            self.line(&line, out)?;
        }
        for scene in story.scenes {
            out.line("")?;
            self.scene(&scene, out)?;
        }
        Ok(())
    }

    fn scene(&self, scene: &Scene<'_>, out: &mut Output) -> Result<()> {
        let (bold, dim, plain, width) = (self.bold, self.dim, self.plain, self.width);
        let step = scene.step;
        // Whole milliseconds: 2026-11-22 10:00:00.123
        let time = step.recorded.get(..23).unwrap_or(&step.recorded).replace('T', " ");
        let mark = match step.kind.as_str() {
            "decision" | "override" => "◆ ",
            "outcome" | "feedback" => "★ ",
            _ => "",
        };
        let kind = match step.kind.as_str() {
            "other" => escaped(&step.events[0].event_type).into_owned(),
            kind => kind.to_owned(),
        };
        let by = scene.by.map_or_else(String::new, |by| format!("  {dim}(by its {by}){plain}"));
        let title = escaped(&scene.title);
        let position = step.position;
        out.line(
            format!("{position:>width$}  {dim}{time}{plain}  {mark}{bold}{kind}{plain}  {title}{by}")
                .trim_end(),
        )?;
        for line in &scene.lines {
            self.line(line, out)?;
        }
        Ok(())
    }

    /// A line of the record: as many of the terminal as it has itself, the first with its position.
    fn line(&self, line: &Line<'_>, out: &mut Output) -> Result<()> {
        if line.detail && !self.full {
            return Ok(());
        }
        let (dim, plain, width) = (self.dim, self.plain, self.width);
        let tone = match line.tone {
            Tone::Content => "",
            Tone::About => dim,
            Tone::Warning => self.warn,
        };
        let end = if tone.is_empty() { "" } else { plain };
        let position = line.position.map_or_else(String::new, |position| position.to_string());
        let label = escaped(&line.label);
        let (text, left) = match self.full {
            true => (&*line.text, 0),
            false => excerpt(&line.text),
        };
        let mut first = true;
        // A line break is the only thing in recorded text that is obeyed, and what comes behind it is set in.
        for piece in text.split('\n') {
            let piece = piece.strip_suffix('\r').unwrap_or(piece).replace('\t', "    ");
            let piece = escaped(&piece);
            let printed = match first {
                true => format!("{dim}{position:>width$}{plain}  {label:<LABEL$}  {tone}{piece}{end}"),
                false => format!("{:>width$}  {:<LABEL$}  {tone}{piece}{end}", "", "│"),
            };
            // What pads a column goes, what was recorded stays.
            out.line(if piece.is_empty() { printed.trim_end() } else { &printed })?;
            first = false;
        }
        if left > 0 {
            let more = format!("… {} more characters; --full shows them", grouped(left));
            out.line(format!("{:>width$}  {:<LABEL$}  {}{more}{plain}", "", "│", self.warn))?;
        }
        Ok(())
    }
}

/// The beginning of a text, and how many characters it leaves out.
fn excerpt(text: &str) -> (&str, u64) {
    let by_lines = text.match_indices('\n').nth(LINES_MAX - 1).map(|(at, _)| at);
    let by_chars = text.char_indices().nth(CHARS_MAX).map(|(at, _)| at);
    let Some(end) = [by_lines, by_chars].into_iter().flatten().min() else { return (text, 0) };
    let left = text[end..].chars().count() as u64;
    // A few more would not be worth a line of their own.
    if left < 80 && by_chars.is_none() {
        return (text, 0);
    }
    (&text[..end], left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_shown_in_part_and_what_is_left_is_counted() {
        assert_eq!(excerpt("short\ntext"), ("short\ntext", 0));
        let long = "ä".repeat(10_000);
        let (shown, left) = excerpt(&long);
        assert_eq!((shown.chars().count(), left), (CHARS_MAX, 10_000 - CHARS_MAX as u64));
        let lines = "a line\n".repeat(100);
        let (shown, left) = excerpt(&lines);
        assert_eq!(shown.lines().count(), LINES_MAX);
        assert_eq!(shown.chars().count() as u64 + left, lines.chars().count() as u64);
    }
}
