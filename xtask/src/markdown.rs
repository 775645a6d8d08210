//! As much of Markdown as the checks need: fenced blocks, links, headings, and where output is to stand.
//!
//! A marker asks for the output of a command in the fenced block behind it:
//!
//! ````text
//! <!-- output: precedent head --json -->
//! ```json
//! {"size":0,"root":"…"}
//! ```
//! ````
//!
//! `<!-- output exit=1: COMMAND -->` says that the command ends with another code than 0.

/// A block that is to hold what a command prints.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OutputBlock {
    /// The line of the marker, from 1.
    pub(crate) line: usize,
    /// The command, as in a shell.
    pub(crate) command: String,
    /// The exit code it has.
    pub(crate) exit: i32,
    /// The lines between the fences: first, and the one behind the last, from 0.
    pub(crate) lines: (usize, usize),
}

/// The fence a line opens or closes: its length, and whether anything follows it.
fn fence(line: &str) -> Option<(char, usize, bool)> {
    let line = line.trim_start();
    let mark = line.chars().next().filter(|c| matches!(c, '`' | '~'))?;
    let len = line.chars().take_while(|c| *c == mark).count();
    (len >= 3).then(|| (mark, len, !line[len..].trim().is_empty()))
}

/// For every line whether it is in a fenced block, the fences included.
fn fenced(lines: &[&str]) -> Vec<bool> {
    let mut open: Option<(char, usize)> = None;
    let mut all = Vec::with_capacity(lines.len());
    for line in lines {
        let this = fence(line);
        match (open, this) {
            (None, Some((mark, len, _))) => {
                open = Some((mark, len));
                all.push(true);
            }
            (Some((mark, len)), Some((m, l, false))) if m == mark && l >= len => {
                open = None;
                all.push(true);
            }
            _ => all.push(open.is_some()),
        }
    }
    all
}

/// Every output block of a document.
pub(crate) fn output_blocks(text: &str) -> Result<Vec<OutputBlock>, String> {
    let lines: Vec<&str> = text.lines().collect();
    let in_fence = fenced(&lines);
    let mut blocks = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(rest) = line.trim().strip_prefix("<!-- output").filter(|_| !in_fence[at]) else { continue };
        let number = at + 1;
        let bad = |what: &str| Err(format!("line {number}: {what}"));
        let Some((options, command)) = rest.strip_suffix("-->").and_then(|rest| rest.split_once(':')) else {
            return bad("expected <!-- output: COMMAND -->");
        };
        let exit = match options.trim().strip_prefix("exit=").map(str::parse) {
            None if options.trim().is_empty() => 0,
            Some(Ok(exit)) => exit,
            _ => return bad(&format!("'{}' is not exit=CODE", options.trim())),
        };
        let Some((mark, len, _)) = lines.get(at + 1).and_then(|line| fence(line)) else {
            return bad("a fenced block has to follow the marker");
        };
        let closes = |line: &&str| fence(line).is_some_and(|(m, l, more)| m == mark && l >= len && !more);
        let Some(count) = lines[at + 2..].iter().position(closes) else {
            return bad("the block behind the marker does not end");
        };
        blocks.push(OutputBlock {
            line: number,
            command: command.trim().to_owned(),
            exit,
            lines: (at + 2, at + 2 + count),
        });
    }
    Ok(blocks)
}

/// The targets of the links of a document, with their lines from 1; those in code are left out.
pub(crate) fn links(text: &str) -> Vec<(usize, String)> {
    let lines: Vec<&str> = text.lines().collect();
    let in_fence = fenced(&lines);
    let mut links = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        if in_fence[at] {
            continue;
        }
        // Every second piece between backticks is code. Of a link whose text is code the target is prose again.
        for prose in line.split('`').step_by(2) {
            let mut rest = prose;
            while let Some((_, target)) = rest.split_once("](") {
                let end = target.find(')').unwrap_or(target.len());
                let link = target[..end].split_whitespace().next().unwrap_or("");
                links.push((at + 1, link.trim_matches(['<', '>']).to_owned()));
                rest = &target[end..];
            }
        }
        // `[name]: target`
        if let Some((name, target)) = line.trim_start().split_once("]: ")
            && name.starts_with('[')
            && let Some(target) = target.split_whitespace().next()
        {
            links.push((at + 1, target.trim_matches(['<', '>']).to_owned()));
        }
    }
    links
}

/// The anchors of a document's headings, as GitHub makes them.
pub(crate) fn anchors(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let in_fence = fenced(&lines);
    let mut anchors: Vec<String> = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let level = line.chars().take_while(|c| *c == '#').count();
        if in_fence[at] || level == 0 || level > 6 || !line[level..].starts_with(' ') {
            continue;
        }
        let anchor: String = line[level..]
            .trim()
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        let again = anchors.iter().filter(|other| **other == anchor).count();
        anchors.push(if again == 0 { anchor } else { format!("{anchor}-{again}") });
    }
    anchors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_and_the_block_behind_it_belong_together() {
        let text = "a\n<!-- output exit=1: precedent verify -->\n```text\none\ntwo\n```\n\n````\n<!-- output: no -->\n````\n";
        let blocks = output_blocks(text).unwrap();
        let expected = OutputBlock { line: 2, command: "precedent verify".into(), exit: 1, lines: (3, 5) };
        assert_eq!(blocks, [expected]);
        let empty = output_blocks("<!-- output: x -->\n```\n```\n").unwrap();
        assert_eq!(empty[0].lines, (2, 2));
    }

    #[test]
    fn a_marker_without_its_block_is_named() {
        for text in [
            "<!-- output: x -->\n\n```\n```\n",
            "<!-- output: x -->\n```\nnever ends\n",
            "<!-- output: x\n```\n```\n",
            "<!-- output exit=no: x -->\n```\n```\n",
            "<!-- output: x -->",
        ] {
            assert!(output_blocks(text).unwrap_err().starts_with("line 1: "), "{text}");
        }
    }

    #[test]
    fn links_are_found_in_prose_and_not_in_code() {
        let text = "[a](b.md) and [`c`](d.md#e \"title\")\n`[no](x)`\n```\n[no](y)\n```\n[r]: z.md\n";
        let expected = [(1, "b.md"), (1, "d.md#e"), (6, "z.md")].map(|(line, to)| (line, to.to_owned()));
        assert_eq!(links(text), expected);
    }

    #[test]
    fn anchors_are_made_as_github_makes_them() {
        let text = "# What is *here*?\n```\n# not\n```\n## A `b`, c\n## A b, c\n#no\n";
        assert_eq!(anchors(text), ["what-is-here", "a-b-c", "a-b-c-1"]);
    }
}
