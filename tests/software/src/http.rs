//! As much HTTP/1.1 as a server needs that tells its clients what they asked.

use std::io::{self, BufRead, BufReader, Read, Write};

/// Answers requests with their method, their path and their body, until the client goes.
///
/// # Errors
///
/// The client went in the middle of a request, or speaks something else.
pub fn echo(stream: impl Read + Write) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let start = line.split(" HTTP/").next().unwrap_or_default().to_owned();
        let mut length = 0;
        loop {
            line.clear();
            stream.read_line(&mut line)?;
            let field = line.trim_end().to_ascii_lowercase();
            if field.is_empty() {
                break;
            }
            if let Some(value) = field.strip_prefix("content-length:") {
                length = value.trim().parse().map_err(io::Error::other)?;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        let mut answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{start} ",
            start.len() + 1 + length
        )
        .into_bytes();
        answer.extend(body);
        let to = stream.get_mut();
        to.write_all(&answer)?;
        to.flush()?;
    }
}
