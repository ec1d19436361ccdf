//! Sends each request to the server that has its slot. [`super`] says which requests are sent again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use redis::{Cmd, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};

use super::failure::{IN_TIME, is_no_script};
use super::node::Node;
use super::outgoing::Outgoing;
use super::{Redis, Topology};
use crate::error::{Error, Result, Trouble};
use crate::scripts::ScriptCall;

/// The pause before a refused request is sent again. It is doubled after each further refusal.
const PAUSE: Duration = Duration::from_millis(5);
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// A request that has no reply yet.
struct Pending<'a> {
    /// Its place among the requests of the call.
    index: usize,
    request: Outgoing<'a>,
    /// EVAL in place of EVALSHA, for a server that does not know the script.
    with_text: Option<Cmd>,
    /// The node that it was redirected to, and whether by `-ASK`.
    redirected: Option<(Arc<Node>, bool)>,
}

impl Pending<'_> {
    /// What is sent this time.
    fn outgoing(&self) -> Outgoing<'_> {
        Outgoing {
            cmd: self.with_text.as_ref().unwrap_or(self.request.cmd),
            asking: matches!(self.redirected, Some((_, true))),
            ..self.request
        }
    }
}

/// What becomes of a request after a reply.
enum Next {
    Done(Value),
    /// It is sent again.
    Again,
    Failed(Error),
}

impl Redis {
    /// Sends requests until each has an answer or the deadline has come. The answers are in the order of the requests.
    pub(super) async fn route(&self, mut all: Vec<Outgoing<'_>>) -> Result<Vec<Result<Value>>> {
        let until = Instant::now() + self.inner.deadline;
        // In a cluster each script is guarded: it does not run in a slot that is on its way to another node.
        let guarded: Vec<Option<ScriptCall>>;
        if self.spans_slots() {
            guarded = all
                .iter()
                .map(|request| request.script.map(ScriptCall::guarded))
                .collect();
            for (request, guarded) in all.iter_mut().zip(&guarded) {
                if let Some(call) = guarded {
                    *request = call.into();
                }
            }
        }
        let routed = self.route_until(all, until);
        match tokio::time::timeout_at(until.into(), routed).await {
            Ok(replies) => replies,
            Err(_) => {
                self.refresh();
                Err(self.unavailable("timeout", Trouble::Silent, IN_TIME.to_owned()))
            }
        }
    }

    async fn route_until(
        &self,
        all: Vec<Outgoing<'_>>,
        until: Instant,
    ) -> Result<Vec<Result<Value>>> {
        let mut replies: Vec<Option<Result<Value>>> = all.iter().map(|_| None).collect();
        let mut pending: Vec<Pending<'_>> = all
            .into_iter()
            .enumerate()
            .map(|(index, request)| Pending {
                index,
                request,
                with_text: None,
                redirected: None,
            })
            .collect();
        let mut pause = PAUSE;
        loop {
            let groups = self.by_node(std::mem::take(&mut pending)).await?;
            let mut refusal = None;
            for (node, group, answers) in join_all(groups.into_iter().map(exchange)).await {
                for (mut request, answer) in group.into_iter().zip(answers) {
                    let reply = match self.next(&node, &mut request, answer, &mut refusal) {
                        Next::Done(reply) => Ok(reply),
                        Next::Failed(error) => Err(error),
                        Next::Again => {
                            pending.push(request);
                            continue;
                        }
                    };
                    if let Some(place) = replies.get_mut(request.index) {
                        *place = Some(reply);
                    }
                }
            }
            let over = match &refusal {
                Some(_) => Instant::now() + pause >= until,
                None => pending.is_empty(),
            };
            if over {
                let why = refusal
                    .unwrap_or_else(|| Error::Internal("a command without an answer".into()));
                let missing = || Err(why.clone());
                return Ok(replies
                    .into_iter()
                    .map(|reply| reply.unwrap_or_else(missing))
                    .collect());
            }
            if refusal.is_some() {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }

    /// Groups the requests by the server that they go to.
    async fn by_node<'a>(
        &self,
        pending: Vec<Pending<'a>>,
    ) -> Result<Vec<(Arc<Node>, Vec<Pending<'a>>)>> {
        let mut groups: Vec<(Arc<Node>, Vec<Pending<'a>>)> = Vec::new();
        for request in pending {
            let node = match (&request.redirected, &self.inner.topology) {
                (Some((node, _)), _) => Arc::clone(node),
                (None, Topology::One(node)) => Arc::clone(node),
                (None, Topology::Sentinel(_)) => match groups.first() {
                    Some((node, _)) => Arc::clone(node),
                    None => self.owner(0).await?,
                },
                (None, Topology::Cluster(_)) => self.owner(request.request.slot()).await?,
            };
            match groups
                .iter_mut()
                .find(|(known, _)| Arc::ptr_eq(known, &node))
            {
                Some((_, group)) => group.push(request),
                None => groups.push((node, vec![request])),
            }
        }
        Ok(groups)
    }

    /// Looks at one answer. Where it asks for a pause before the request is sent again, it leaves the error in `refusal`.
    fn next(
        &self,
        node: &Node,
        pending: &mut Pending<'_>,
        answer: RedisResult<Value>,
        refusal: &mut Option<Error>,
    ) -> Next {
        let error = match answer {
            Ok(reply) => {
                node.note_answer(pending.request.writes());
                return Next::Done(reply);
            }
            Err(error) => error,
        };
        if let (true, Some(call), None) = (
            is_no_script(&error),
            pending.request.script,
            &pending.with_text,
        ) {
            self.inner.metrics.script_reload();
            pending.with_text = Some(call.with_text());
            return Next::Again;
        }
        match self.refused(node, pending, &error) {
            NodeRefusal::Finally => Next::Failed(self.failed_at(node, pending.request, error)),
            NodeRefusal::Redirected => Next::Again,
            NodeRefusal::ForNow => {
                if error.kind() != ErrorKind::Server(ServerErrorKind::TryAgain) {
                    self.refresh();
                }
                *refusal = Some(self.failed(node, error));
                Next::Again
            }
        }
    }

    /// Whether the server has refused a request in a way that another attempt may change. Then the request knows where it
    /// goes next.
    fn refused(&self, node: &Node, pending: &mut Pending<'_>, error: &RedisError) -> NodeRefusal {
        let cluster = match &self.inner.topology {
            Topology::One(_) => return NodeRefusal::Finally,
            Topology::Cluster(cluster) => Some(cluster),
            Topology::Sentinel(_) => None,
        };
        match error.kind() {
            ErrorKind::Server(kind @ (ServerErrorKind::Moved | ServerErrorKind::Ask)) => {
                let moved = kind == ServerErrorKind::Moved;
                let to = cluster.zip(error.redirect_node());
                let to = to.and_then(|(cluster, (address, slot))| {
                    cluster.redirected(node, address, moved.then_some(slot))
                });
                // The first redirect is followed at once. Two nodes that redirect to each other must not be kept busy.
                let first = pending.redirected.is_none();
                pending.redirected = to.map(|node| (node, !moved));
                match first && pending.redirected.is_some() {
                    true => NodeRefusal::Redirected,
                    false => NodeRefusal::ForNow,
                }
            }
            ErrorKind::Server(
                ServerErrorKind::TryAgain
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown
                | ServerErrorKind::BusyLoading
                | ServerErrorKind::ReadOnly,
            ) => {
                pending.redirected = None;
                NodeRefusal::ForNow
            }
            // No server has seen the request.
            _ if error.is_connection_refusal() => {
                pending.redirected = None;
                NodeRefusal::ForNow
            }
            _ => NodeRefusal::Finally,
        }
    }
}

/// How a request was refused.
enum NodeRefusal {
    /// For good, or nobody knows whether it was executed.
    Finally,
    /// Another node has it.
    Redirected,
    /// It is sent again after a pause.
    ForNow,
}

/// Sends a group of requests to their server.
async fn exchange<'a>(
    (node, group): (Arc<Node>, Vec<Pending<'a>>),
) -> (Arc<Node>, Vec<Pending<'a>>, Vec<RedisResult<Value>>) {
    let requests: Vec<Outgoing<'_>> = group.iter().map(Pending::outgoing).collect();
    let answers = node.send_all(&requests).await;
    drop(requests);
    (node, group, answers)
}
