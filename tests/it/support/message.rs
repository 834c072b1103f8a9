//! The little of HTTP/1 that a test needs, and no more forgiving than it must be.

use std::{
    fmt,
    io::{self, Read},
};

/// A head as it came, byte for byte.
#[derive(Clone, Default, Eq, PartialEq)]
pub struct Head {
    pub text: String,
}

/// A request as a backend received it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Received {
    pub head: Head,
    /// What was read of its body, without framing.
    pub body: Vec<u8>,
    /// The number of the connection that it came on, from 0.
    pub connection: usize,
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Framing {
    Chunked,
    Length(u64),
    UntilClose,
}

impl Head {
    /// Reads up to and including the empty line. `None` where the stream ends before the first byte.
    pub fn read(stream: &mut impl Read) -> io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        let mut byte = [0];
        while !bytes.ends_with(b"\r\n\r\n") {
            match stream.read(&mut byte)? {
                0 if bytes.is_empty() => return Ok(None),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                _ => bytes.extend(byte),
            }
        }
        Ok(Some(Self { text: String::from_utf8_lossy(&bytes).into_owned() }))
    }

    pub fn first_line(&self) -> &str {
        self.text.lines().next().unwrap_or_default()
    }

    /// The values of a header, in their order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let fields = self.text.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
    }

    /// The value of a header that is given at most once.
    #[track_caller]
    pub fn get(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() <= 1, "{name} is given more than once: {self:?}");
        all.first().copied()
    }

    /// The framing that these headers announce, where there are any that do.
    pub fn framing(&self) -> Option<Framing> {
        let chunked = self.get("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
        let length = self.get("content-length").and_then(|length| length.parse().ok());
        chunked.then_some(Framing::Chunked).or(length.map(Framing::Length))
    }
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n{}", self.text)
    }
}

impl Received {
    pub fn method(&self) -> &str {
        self.head.first_line().split(' ').next().unwrap_or_default()
    }

    /// The request target.
    pub fn target(&self) -> &str {
        self.head.first_line().split(' ').nth(1).unwrap_or_default()
    }

    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.get(name)
    }
}

impl Framing {
    /// Reads a body to its end, handing over each piece. An error is a body that was cut.
    pub fn read(self, stream: &mut impl Read, mut piece: impl FnMut(&[u8])) -> io::Result<()> {
        match self {
            Self::Length(length) => read_exactly(stream, length, &mut piece),
            Self::UntilClose => read_until_close(stream, &mut piece),
            Self::Chunked => loop {
                let size = read_line(stream)?;
                let size = size.split(';').next().unwrap_or_default().trim();
                let size = u64::from_str_radix(size, 16).map_err(io::Error::other)?;
                if size == 0 {
                    while !read_line(stream)?.is_empty() {}
                    return Ok(());
                }
                read_exactly(stream, size, &mut piece)?;
                if !read_line(stream)?.is_empty() {
                    return Err(io::Error::other("no line end after a chunk"));
                }
            },
        }
    }
}

fn read_line(stream: &mut impl Read) -> io::Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    while !line.ends_with(b"\r\n") {
        stream.read_exact(&mut byte)?;
        line.extend(byte);
    }
    line.truncate(line.len() - 2);
    String::from_utf8(line).map_err(io::Error::other)
}

fn read_exactly(stream: &mut impl Read, length: u64, piece: &mut impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = [0; 64 * 1024];
    let mut left = length;
    while left > 0 {
        let room = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        match stream.read(&mut buffer[..room])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => {
                piece(&buffer[..n]);
                left -= n as u64;
            }
        }
    }
    Ok(())
}

fn read_until_close(stream: &mut impl Read, piece: &mut impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = [0; 64 * 1024];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            n => piece(&buffer[..n]),
        }
    }
}
