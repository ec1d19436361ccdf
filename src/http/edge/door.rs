//! Closes a listener without cutting anybody off. A peer whose connection the kernel has taken gets an answer, even if the
//! program has not accepted it yet. A later peer finds that nobody listens.

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use socket2::SockRef;

/// How long the server has to accept the connections that the kernel has taken.
const SETTLE: Duration = Duration::from_millis(250);

/// Lets no new connection in, and waits until the server has accepted those that are in. Call it before the server stops: when a
/// listener is closed, the kernel cuts off every connection that has not been accepted.
pub(crate) async fn shut(listener: &TcpListener) {
    if keep_out(listener).is_ok() {
        tokio::time::sleep(SETTLE).await;
    }
}

/// Has the kernel drop the packets that open a connection, and no others. The peer sends its packet again a second later, and
/// then hears that nobody listens.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn keep_out(listener: &TcpListener) -> io::Result<()> {
    use socket2::SockFilter;
    // The filter sees a packet from its TCP header on: SYN is a bit of byte 13, counted from 0.
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
    // There is no such filter here: the shortest possible queue keeps most newcomers out.
    SockRef::from(listener).listen(0)
}
