//! The TCP probe: a backend that accepts a connection is fit; where words are sent or expected, one that has the right answer.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Attempt, Failure, Question, READ_LIMIT, quoted};
use crate::{
    config::plan::{ProbeTls, TcpProbe, Wanted},
    upstream::Transport,
};

pub(super) async fn probe(attempt: &mut Attempt, question: &Question, probe: &TcpProbe) -> Result<(), Failure> {
    let is_silent = probe.send.is_none() && probe.expect.is_none();
    if is_silent && !matches!(question.check().tls, ProbeTls::Own(_)) {
        return attempt.connect(&question.dial.address).await.map(drop);
    }
    let mut transport = attempt.dial(&question.dial).await?;
    if let Some(text) = &probe.send {
        let sent = async {
            transport.write_all(text.as_bytes()).await?;
            transport.flush().await
        };
        attempt.within("timeout", "room for what was sent", sent).await?.map_err(|error| broken(&error))?;
    }
    let Some(wanted) = &probe.expect else { return Ok(()) };
    let mut read = Vec::new();
    let heard = attempt.within("timeout", &format!("`{wanted}`"), hear(&mut read, &mut transport, wanted)).await;
    attempt.show(&read);
    match heard? {
        Ok(true) => {
            attempt.first_byte = Some(attempt.started.elapsed());
            attempt.found = "answered".to_owned();
            Ok(())
        }
        Ok(false) if read.is_empty() => Err(Failure::new("closed", "connection closed without an answer")),
        Ok(false) => {
            let shown = quoted(&String::from_utf8_lossy(&read), 60);
            Err(Failure::new("body", format!("no `{wanted}` in `{shown}`")))
        }
        Err(error) => Err(broken(&error)),
    }
}

/// Reads until what is wanted is there; or to the end, or to 64 KiB, which is to say that it is not.
async fn hear(read: &mut Vec<u8>, transport: &mut Transport, wanted: &Wanted) -> io::Result<bool> {
    while !wanted.is_in(read) {
        let room = READ_LIMIT - read.len();
        if room == 0 || transport.take(room as u64).read_buf(read).await? == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

fn broken(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Failure::new("reset", "connection reset"),
        // TLS that ends without saying so.
        io::ErrorKind::UnexpectedEof => Failure::new("closed", "connection closed in the middle"),
        _ => Failure::new("bad_response", format!("connection broken: {error}")),
    }
}
