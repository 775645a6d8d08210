//! Progress of long work: on a terminal only, on stderr, gone when the work is done.

use std::io::IsTerminal;
use std::sync::{Arc, OnceLock};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use precedent::OpenOptions;

/// A bar over events; without a total it counts. It is hidden where stderr is no terminal.
pub(crate) fn events(doing: &'static str, total: Option<u64>) -> ProgressBar {
    let template = match total {
        Some(_) => "{msg:<10} {wide_bar} {human_pos}/{human_len} events  {eta}",
        None => "{msg:<10} {human_pos} events  {elapsed}",
    };
    bar(doing, total, template)
}

/// A bar over the bytes of a file; without a total it counts.
pub(crate) fn bytes(doing: &'static str, total: Option<u64>) -> ProgressBar {
    let template = match total {
        Some(_) => "{msg:<10} {wide_bar} {bytes}/{total_bytes}  {eta}",
        None => "{msg:<10} {bytes}  {elapsed}",
    };
    bar(doing, total, template)
}

/// The same options, with a bar while a log on Azure is caught up with: it is there once there is something to fetch.
pub(crate) fn catching_up(mut options: OpenOptions) -> OpenOptions {
    if std::io::stderr().is_terminal() {
        let bar: OnceLock<ProgressBar> = OnceLock::new();
        options.catching_up = Some(Arc::new(move |here, done| {
            let bar = bar.get_or_init(|| events("fetching", None));
            bar.set_position(here);
            if done {
                bar.finish_and_clear();
            }
        }));
    }
    options
}

/// A line that says what is being done, without a number.
pub(crate) fn steps() -> ProgressBar {
    bar("", None, "{spinner} {msg}")
}

/// No bar at all.
pub(crate) fn hidden() -> ProgressBar {
    ProgressBar::hidden()
}

fn bar(doing: &'static str, total: Option<u64>, template: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return hidden();
    }
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(doing);
    bar
}

/// Removes the bar when the work ends, however it ends.
pub(crate) struct Clearing<'a>(pub(crate) &'a ProgressBar);

impl Drop for Clearing<'_> {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
