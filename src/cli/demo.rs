//! `unread demo`: a pod with the example configuration, a private Redis that is thrown away at the end, and sample data. It
//! prints the address of a page to try it, and calls to paste. The environment sets what concerns the server and the log.

mod calls;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use clap::Args;
use tokio::sync::oneshot;

use super::exit::{self, Failure};
use super::output::print;
use super::process::{Signals, begin_log, ignore_signals, on_runtime};
use crate::app::{App, Stop};
use crate::config::{self, Config, Flags};
use crate::demo::{self, private_redis, send_sample};
use crate::http;
use crate::pages::chat::Chat;

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Address of the vendor endpoints and of /v1; port 0: any free one
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Address of the console, /livez, /readyz, /metrics and /openapi.yaml
    #[arg(long, value_name = "HOST:PORT")]
    admin_listen: Option<String>,
}

impl DemoArgs {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let flags = Flags {
            listen: self.listen,
            admin_listen: self.admin_listen,
            ..Flags::default()
        };
        let config = demo::config(&flags, config::environment()?, &http::sections())?;
        begin_log(&config.log);
        on_runtime(async {
            ignore_signals()?;
            run(config, Signals::listen()?).await
        })?;
        Ok(exit::WELL)
    }
}

/// Runs the demo until a signal.
async fn run(mut config: Config, signals: Signals) -> Result<(), Failure> {
    let dir = private_redis::fresh_dir("unread-demo").map_err(|error| {
        let temp = std::env::temp_dir();
        format!(
            "{}: no directory can be made in it: {error}",
            temp.display()
        )
    })?;
    config.redis.data_dir.clone_from(&dir);
    let done = run_in(config, signals).await;
    // What is left behind lies in the system's directory for such things.
    let _ = std::fs::remove_dir_all(&dir);
    done
}

async fn run_in(config: Config, signals: Signals) -> Result<(), Failure> {
    let demo = config.apps.first().cloned();
    let demo = demo.ok_or_else(|| Failure::Failed("there is no demo app".into()))?;
    let data_dir = config.redis.data_dir.clone();
    let stop = signals.stop();
    tokio::pin!(stop);
    let app = tokio::select! {
        app = App::build_with(config, Some(Chat::new(demo.clone()))) => app.map_err(|error| error.to_string())?,
        _ = &mut stop => return Ok(()),
    };
    let (listen, admin) = (reachable(app.listen()), reachable(app.admin_listen()));
    let (give_up, given_up) = oneshot::channel::<()>();
    let running = app.run(async {
        tokio::select! {
            stop = stop => stop,
            _ = given_up => Stop::Now,
        }
    });
    let filling = async {
        let filled = send_sample(listen, &demo).await;
        match filled {
            Ok(()) => {
                let redis = private_redis::running(&data_dir);
                let redis = redis.as_ref().map(|url| url.0.as_str());
                print(&calls::to_paste(listen, admin, &demo, redis));
                // Kept, or the app would stop.
                Ok(Some(give_up))
            }
            Err(why) => {
                let _ = give_up.send(());
                let why = format!("the sample data could not be sent: {why}");
                Err(Failure::Failed(why))
            }
        }
    };
    let ((), filled) = tokio::join!(running, filling);
    filled.map(drop)
}

/// The address under which a listener on all addresses is reached from this machine.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}
