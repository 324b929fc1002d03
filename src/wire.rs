//! The frames between a container's monitor and its clients, over a stream socket.
//!
//! A frame is a kind (1 byte), a length (4 bytes, little endian) and that many bytes. The foreground client is a fork of
//! the same program; who comes through the control socket may be another version, so kinds are never renumbered, and
//! unknown ones are skipped.

/// A frame's kind. Clients send the ones from 16 on.
pub const STDOUT: u8 = 1;
/// Bytes of the program's standard error.
pub const STDERR: u8 = 2;
/// Text of minidock's own for the client's standard error (explained commands, warnings).
pub const NOTE: u8 = 3;
/// The program has been exec'd. No content.
pub const STARTED: u8 = 4;
/// The program has ended: exit code, i32.
pub const EXIT: u8 = 5;
/// The start failed: exit code, i32, then the error text.
pub const FAILED: u8 = 6;
/// The answer to a [`CALL`]: JSON, see `monitor::control`.
pub const ANSWER: u8 = 7;
/// Pass this signal on: number, i32.
pub const SIGNAL: u8 = 16;
/// The terminal's size: rows, columns, u16 each.
pub const RESIZE: u8 = 17;
/// Bytes for the program's terminal.
pub const INPUT: u8 = 18;
/// Let the container live on without this client.
pub const DETACH: u8 = 19;
/// A question at the control socket: JSON, see `monitor::control`.
pub const CALL: u8 = 20;

/// The client has no more standard input for the program.
pub const STDIN_END: u8 = 21;

/// A longer frame is never sent.
pub const MAX_FRAME: usize = 64 << 10;
const HEAD: usize = 5;

/// Appends a frame to a buffer of bytes to be sent.
pub fn push(out: &mut Vec<u8>, kind: u8, content: &[u8]) {
    out.push(kind);
    out.extend_from_slice(&(content.len() as u32).to_le_bytes());
    out.extend_from_slice(content);
}

/// Takes whole frames out of received bytes and hands each to `take`; what is left waits for more bytes.
/// A frame longer than [`MAX_FRAME`] is an error.
pub fn drain(input: &mut Vec<u8>, mut take: impl FnMut(u8, &[u8])) -> Result<(), String> {
    let mut at = 0;
    while input.len() - at >= HEAD {
        let length = u32::from_le_bytes([input[at + 1], input[at + 2], input[at + 3], input[at + 4]]) as usize;
        if length > MAX_FRAME {
            return Err(format!("a frame of {length} bytes"));
        }
        let Some(content) = input.get(at + HEAD..at + HEAD + length) else { break };
        take(input[at], content);
        at += HEAD + length;
    }
    input.drain(..at);
    Ok(())
}

/// Takes only the first frame, when it is whole: (kind, content).
pub fn take_first(input: &mut Vec<u8>) -> Result<Option<(u8, Vec<u8>)>, String> {
    let Some(head) = input.get(..HEAD) else { return Ok(None) };
    let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if length > MAX_FRAME {
        return Err(format!("a frame of {length} bytes"));
    }
    if input.len() < HEAD + length {
        return Ok(None);
    }
    let frame: Vec<u8> = input.drain(..HEAD + length).collect();
    Ok(Some((frame[0], frame[HEAD..].to_vec())))
}

/// Reads an i32 from a frame's beginning.
pub fn number(content: &[u8]) -> i32 {
    content.get(..4).map_or(0, |bytes| i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_cut_anywhere_come_out_whole_and_in_order() {
        let mut bytes = Vec::new();
        push(&mut bytes, STDOUT, b"hello");
        push(&mut bytes, EXIT, &7i32.to_le_bytes());
        for cut in 0..bytes.len() {
            let (mut input, mut seen) = (bytes[..cut].to_vec(), Vec::new());
            drain(&mut input, |kind, content| seen.push((kind, content.to_vec()))).unwrap();
            input.extend_from_slice(&bytes[cut..]);
            drain(&mut input, |kind, content| seen.push((kind, content.to_vec()))).unwrap();
            assert_eq!(seen, [(STDOUT, b"hello".to_vec()), (EXIT, 7i32.to_le_bytes().to_vec())]);
            assert!(input.is_empty());
        }
    }

    #[test]
    fn an_oversized_frame_is_refused() {
        let mut input = vec![STDOUT, 0xff, 0xff, 0xff, 0x7f];
        assert!(drain(&mut input, |_, _| ()).is_err());
    }
}
