//! How a listener is closed without cutting anybody off: whoever has come through it by then, even if not yet as far as us, gets an
//! answer. To whom comes later it is as if nobody listened.

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use socket2::SockRef;

/// For those who are on their way in to be accepted.
const SETTLE: Duration = Duration::from_millis(250);

/// Lets nobody in any more, and waits until those are accepted who are in. To be called before the server is stopped: the kernel
/// cuts off whoever has connected and has not been accepted when the listener is closed.
pub(crate) async fn shut(listener: &TcpListener) {
    if keep_out(listener).is_ok() {
        tokio::time::sleep(SETTLE).await;
    }
}

/// Has the kernel drop what opens a connection, and nothing else. Who is dropped tries again a second later, and is then told that
/// nobody listens.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn keep_out(listener: &TcpListener) -> io::Result<()> {
    use socket2::SockFilter;
    // A packet begins with its TCP header here: SYN is a bit of its fourteenth byte.
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_IF_SET: u16 = 0x45;
    const RETURN: u16 = 0x06;
    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    SockRef::from(listener).attach_filter(&[
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS),
        SockFilter::new(JUMP_IF_SET, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ])
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn keep_out(listener: &TcpListener) -> io::Result<()> {
    // As few as may be wait to be accepted.
    SockRef::from(listener).listen(0)
}
