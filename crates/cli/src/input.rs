//! Whether somebody sends something on stdin to a command that does not read it.

/// Whether stdin is a file or, on Linux, a pipe with bytes in it. A terminal has none, however much is typed.
///
/// A pipe in which there is nothing yet may stay so for ever, as one inherited from a service manager does: what
/// is not there within 50 ms, long enough for a program that was started together with this one, does not count.
/// Bytes that were seen are gone from stdin.
#[cfg(unix)]
pub(crate) async fn is_waiting() -> bool {
    use std::io::BufRead;

    match std::fs::metadata(STDIN) {
        // The end of a file is an answer: this does not block.
        Ok(stdin) if stdin.is_file() => {
            std::io::stdin().lock().fill_buf().is_ok_and(|bytes| !bytes.is_empty())
        }
        #[cfg(target_os = "linux")]
        Ok(stdin) if std::os::unix::fs::FileTypeExt::is_fifo(&stdin.file_type()) => bytes_in_pipe().await,
        _ => false,
    }
}

/// There is no such question elsewhere that never blocks.
#[cfg(not(unix))]
pub(crate) async fn is_waiting() -> bool {
    false
}

#[cfg(unix)]
const STDIN: &str = "/dev/stdin";

#[cfg(target_os = "linux")]
async fn bytes_in_pipe() -> bool {
    // On Linux this opens the pipe anew: that it does not block here changes nothing for whoever shares it.
    let Ok(pipe) = tokio::net::unix::pipe::OpenOptions::new().open_receiver(STDIN) else { return false };
    let first = async {
        loop {
            pipe.readable().await.ok()?;
            match pipe.try_read(&mut [0]) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                read => return read.ok(),
            }
        }
    };
    let patience = std::time::Duration::from_millis(50);
    matches!(tokio::time::timeout(patience, first).await, Ok(Some(1)))
}
