use std::time::Duration;

use super::*;
use futures_util::FutureExt;
use redis::ConnectionAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A peer that does as the test says, and a link to it.
async fn peer() -> (TcpListener, Link) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (host, port) = (
        "127.0.0.1".to_owned(),
        listener.local_addr().unwrap().port(),
    );
    let info = redis::IntoConnectionInfo::into_connection_info(ConnectionAddr::Tcp(host, port));
    let link = Link::new(Arc::new(Dialer {
        info: info.unwrap(),
        tls: None,
        connect: Duration::from_secs(60),
        response: Duration::from_secs(60),
        retries: 3,
    }));
    (listener, link)
}

/// The next connection, logged in.
async fn accept(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut ping = [0; "*1\r\n$4\r\nPING\r\n".len()];
    stream.read_exact(&mut ping).await.unwrap();
    stream.write_all(b"+PONG\r\n").await.unwrap();
    stream
}

/// Reads until so many commands have come, each of which is one word of one letter.
async fn commands(stream: &mut TcpStream, count: usize) -> String {
    let mut bytes = vec![0; count * "*1\r\n$1\r\na\r\n".len()];
    stream.read_exact(&mut bytes).await.unwrap();
    let text = String::from_utf8(bytes).unwrap();
    text.lines().skip(2).step_by(3).collect()
}

/// Expects one command and answers it.
async fn exchange(stream: &mut TcpStream, command: &str, reply: &str) {
    assert_eq!(commands(stream, 1).await, command);
    stream.write_all(reply.as_bytes()).await.unwrap();
}

/// Has the link make a connection for one command, which is answered.
async fn connected_for(
    listener: &TcpListener,
    link: &Link,
    command: &str,
    reply: &str,
) -> (TcpStream, RedisResult<Value>) {
    let serve = async {
        let mut stream = accept(listener).await;
        exchange(&mut stream, command, reply).await;
        stream
    };
    let cmd = redis::cmd(command);
    tokio::join!(serve, link.send((&cmd).into()))
}

#[tokio::test]
async fn what_is_sent_at_once_is_answered_in_its_order() {
    let (listener, link) = peer().await;
    let (a, b, c) = (redis::cmd("a"), redis::cmd("b"), redis::cmd("c"));
    // Requests that wait for a connection have no order.
    let (mut stream, _) = connected_for(&listener, &link, "a", ":0\r\n").await;
    let serve = async {
        assert_eq!(commands(&mut stream, 4).await, "abca");
        for reply in [":1\r\n:", "2\r\n$1\r\n", "3\r\n-ERR no\r\n"] {
            stream.write_all(reply.as_bytes()).await.unwrap();
        }
    };
    let asked = async {
        let two = [(&b).into(), (&c).into()];
        tokio::join!(
            link.send((&a).into()),
            link.send_all(&two),
            link.send((&a).into())
        )
    };
    let ((), (first, two, last)) = tokio::join!(serve, asked);
    assert_eq!(first.unwrap(), Value::Int(1));
    let three = Value::BulkString(b"3".to_vec());
    assert_eq!(two.unwrap(), [Value::Int(2), three]);
    assert!(last.unwrap().extract_error().is_err());
}

#[tokio::test]
async fn who_gives_up_leaves_no_reply_to_others() {
    let (listener, link) = peer().await;
    let (a, b) = (redis::cmd("a"), redis::cmd("b"));
    // Given up before there is a connection: not sent at all.
    assert!(link.send((&a).into()).now_or_never().is_none());
    let mut stream = accept(&listener).await;
    let serve = async {
        exchange(&mut stream, "b", ":1\r\n").await;
    };
    let ((), answer) = tokio::join!(serve, link.send((&b).into()));
    assert_eq!(answer.unwrap(), Value::Int(1));
    // Given up after it was sent.
    let mut sent = Box::pin(link.send((&a).into()));
    assert!((&mut sent).now_or_never().is_none());
    assert_eq!(commands(&mut stream, 1).await, "a");
    drop(sent);
    let serve = async {
        exchange(&mut stream, "b", ":2\r\n:3\r\n").await;
    };
    let ((), answer) = tokio::join!(serve, link.send((&b).into()));
    assert_eq!(answer.unwrap(), Value::Int(3));
}

#[tokio::test]
async fn a_reply_that_nobody_asked_for_is_nobodys() {
    let (listener, link) = peer().await;
    let (mut stream, answer) = connected_for(&listener, &link, "a", ":1\r\n:7\r\n").await;
    assert_eq!(answer.unwrap(), Value::Int(1));
    let b = redis::cmd("b");
    let ((), answer) = tokio::join!(exchange(&mut stream, "b", ":2\r\n"), link.send((&b).into()));
    assert_eq!(answer.unwrap(), Value::Int(2));
}

#[test]
fn a_runtime_that_ends_takes_nobody_with_it() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap()
    };
    let first = runtime();
    let (listener, link) = first.block_on(peer());
    let listener = listener.into_std().unwrap();
    let a = redis::cmd("a");
    // The task has not even begun.
    let mut waiting = Box::pin(link.send((&a).into()));
    first.block_on(async { assert!((&mut waiting).now_or_never().is_none()) });
    drop(first);
    let next = runtime();
    assert!(next.block_on(waiting).unwrap_err().is_connection_dropped());
    let answer = next.block_on(async {
        let listener = TcpListener::from_std(listener).unwrap();
        connected_for(&listener, &link, "a", ":1\r\n").await.1
    });
    assert_eq!(answer.unwrap(), Value::Int(1));
}

#[tokio::test]
async fn a_server_that_has_no_place_for_us_has_not_seen_the_request() {
    let (listener, link) = peer().await;
    let a = redis::cmd("a");
    let serve = async {
        for refusal in [
            "-ERR max number of clients reached\r\n",
            "-DENIED no\r\n",
            "",
        ] {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(refusal.as_bytes()).await.unwrap();
        }
        let mut stream = accept(&listener).await;
        exchange(&mut stream, "a", ":1\r\n").await;
        stream
    };
    let (_stream, answer) = tokio::join!(serve, link.send((&a).into()));
    assert_eq!(answer.unwrap(), Value::Int(1));
}

#[tokio::test]
async fn a_break_fails_what_was_sent_and_a_new_connection_is_made_for_the_next() {
    let (listener, link) = peer().await;
    let a = redis::cmd("a");
    let (mut stream, _) = connected_for(&listener, &link, "a", ":0\r\n").await;
    let serve = async {
        assert_eq!(commands(&mut stream, 2).await, "aa");
        // An end in the middle of a reply.
        stream.write_all(b":1\r\n$5\r\nha").await.unwrap();
        drop(stream);
    };
    let asked = async { tokio::join!(link.send((&a).into()), link.send((&a).into())) };
    let ((), (first, second)) = tokio::join!(serve, asked);
    assert_eq!(first.unwrap(), Value::Int(1));
    assert!(second.unwrap_err().is_connection_dropped());
    let (_stream, answer) = connected_for(&listener, &link, "b", "+OK\r\n").await;
    assert_eq!(answer.unwrap(), Value::Okay);
}

#[tokio::test]
async fn a_reply_that_comes_too_late_is_nobodys() {
    let (listener, link) = peer().await;
    let (a, b) = (redis::cmd("a"), redis::cmd("b"));
    let (mut stream, answer) = connected_for(&listener, &link, "a", ":1\r\n").await;
    assert_eq!(answer.unwrap(), Value::Int(1));
    tokio::time::pause();
    let late = link.send((&a).into()).await;
    tokio::time::resume();
    assert!(late.unwrap_err().is_timeout());
    exchange(&mut stream, "a", ":1\r\n").await;
    let serve = async {
        exchange(&mut stream, "b", ":2\r\n").await;
    };
    let ((), answer) = tokio::join!(serve, link.send((&b).into()));
    assert_eq!(answer.unwrap(), Value::Int(2));
}

#[tokio::test]
async fn the_connection_ends_with_its_last_handle() {
    let (listener, link) = peer().await;
    let serve = async {
        let mut stream = accept(&listener).await;
        exchange(&mut stream, "a", ":1\r\n").await;
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    };
    let asked = async {
        let other = link.clone();
        drop(link);
        other.send((&redis::cmd("a")).into()).await.unwrap()
    };
    let ((), answer) = tokio::join!(serve, asked);
    assert_eq!(answer, Value::Int(1));
}

#[tokio::test]
async fn a_connection_that_comes_after_its_last_handle_is_closed() {
    let (listener, link) = peer().await;
    let a = redis::cmd("a");
    assert!(link.send((&a).into()).now_or_never().is_none());
    let (mut stream, _) = listener.accept().await.unwrap();
    drop(link);
    stream.write_all(b"+PONG\r\n").await.unwrap();
    let mut sent = Vec::new();
    let closed = stream.read_to_end(&mut sent);
    let closed = tokio::time::timeout(Duration::from_secs(10), closed).await;
    assert!(closed.is_ok(), "the connection is still open");
}

#[tokio::test]
async fn a_full_queue_makes_callers_wait() {
    let (listener, link) = peer().await;
    let a = redis::cmd("a");
    let count = 4 * QUEUE;
    let all = futures_util::future::join_all((0..count).map(|_| link.send((&a).into())));
    let serve = async {
        let mut stream = accept(&listener).await;
        commands(&mut stream, count).await;
        let replies = ":1\r\n".repeat(count);
        stream.write_all(replies.as_bytes()).await.unwrap();
        stream
    };
    let (_stream, answers) = tokio::join!(serve, all);
    assert!(
        answers
            .into_iter()
            .all(|answer| answer.unwrap() == Value::Int(1))
    );
}

#[tokio::test]
async fn a_request_that_finds_no_connection_says_why() {
    let (listener, link) = peer().await;
    drop(listener);
    let error = link.send((&redis::cmd("a")).into()).await.unwrap_err();
    assert!(error.is_connection_refusal(), "{error}");
}

/// A server that closes while the link logs in has seen no request.
#[tokio::test]
async fn a_request_is_known_not_to_be_sent_where_the_login_fails() {
    let (listener, link) = peer().await;
    let close_each = async {
        loop {
            drop(listener.accept().await.unwrap());
        }
    };
    let cmd = redis::cmd("a");
    let error = tokio::select! {
        answer = link.send((&cmd).into()) => answer.unwrap_err(),
        () = close_each => unreachable!(),
    };
    assert!(error.is_connection_refusal(), "{error}");
}
