//! `unread serve`.

use std::path::PathBuf;

use clap::Args;

use super::args::ConfigArgs;
use super::exit::{self, Failure};
use super::process::{Signals, begin_log, ignore_signals, on_runtime};
use crate::app::App;
use crate::config::{self, Config, Flags, WeakSecret};
use crate::http;

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    file: ConfigArgs,
    /// Address of the vendor endpoints and of /v1; port 0: any free one, which the log names
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Address of the console, /livez, /readyz, /metrics and /openapi.yaml
    #[arg(long, value_name = "HOST:PORT")]
    admin_listen: Option<String>,
    /// The Redis to use; without it and without redis.url, a private redis-server that the pod starts
    #[arg(long, value_name = "URL")]
    redis_url: Option<String>,
    /// Directory in which a private redis-server keeps its data
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl ServeArgs {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let config = config::load(
            &Flags {
                file: self.file.config,
                listen: self.listen,
                admin_listen: self.admin_listen,
                redis_url: self.redis_url,
                data_dir: self.data_dir,
            },
            &http::sections(),
        )?;
        begin_log(&config.log);
        on_runtime(serve(config)).map(|()| exit::WELL)
    }
}

async fn serve(config: Config) -> Result<(), Failure> {
    let idle = config::idle(&config);
    let weak = config::weak_secrets(&config, &http::sections());
    ignore_signals()?;
    let mut signals = Signals::listen()?;
    let app = tokio::select! {
        app = App::build(config) => app.map_err(|error| Failure::Failed(error.to_string()))?,
        _ = signals.next() => return Ok(()),
    };
    for WeakSecret { setting, why } in weak {
        tracing::warn!(setting, "this secret {why}");
    }
    for idle in idle {
        tracing::warn!("{idle}");
    }
    app.run(signals.stop()).await;
    Ok(())
}
