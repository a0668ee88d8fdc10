//! Pid 1 of a host: starts units in their order, reaps every process, and answers the control socket. No unit is special to it.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{WaitOptions, wait};

use crate::control::{Incoming, Request, UnitStatus, Verb};
use crate::service::Service;

/// Ends of processes are noticed this late at most. Everything happens in one thread: a second one that waits for
/// children would take them away from the standard library while it starts a program.
const ROUND: Duration = Duration::from_millis(20);

/// All units of a host.
pub struct Supervisor {
    services: BTreeMap<String, Service>,
    requests: Receiver<Incoming>,
}

impl Supervisor {
    pub fn new(services: BTreeMap<String, Service>, requests: Receiver<Incoming>) -> Self {
        Self { services, requests }
    }

    /// Starts every unit whose conditions hold and works until the power is cut. Errors: the control socket is lost.
    pub fn run(&mut self) -> Result<()> {
        for service in self.services.values_mut() {
            service.start();
        }
        loop {
            self.reap();
            self.advance(Instant::now());
            match self.requests.recv_timeout(ROUND) {
                Ok((request, answer)) => {
                    let result = self.serve(&request);
                    self.advance(Instant::now());
                    // The caller may have given up waiting.
                    let _ = answer.send(result.map(|()| self.status()));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => bail!("the control socket is lost"),
            }
        }
    }

    fn serve(&mut self, request: &Request) -> Result<()> {
        if request.verb == Verb::Status {
            return Ok(());
        }
        let known = || format!("no unit {}", request.unit);
        let service = self.services.get_mut(&request.unit).with_context(known)?;
        match request.verb {
            Verb::Status => Ok(()),
            Verb::Start => {
                service.start();
                Ok(())
            }
            Verb::Stop => {
                service.stop(false, Instant::now());
                Ok(())
            }
            Verb::Restart => {
                service.stop(true, Instant::now());
                Ok(())
            }
            Verb::Kill => service.kill(false),
            Verb::KillAndHold => service.kill(true),
        }
    }

    fn status(&self) -> Vec<UnitStatus> {
        self.services.values().map(Service::status).collect()
    }

    /// Orphans of the whole host end up here, too; they only need to be waited for.
    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let status = ExitStatus::from_raw(status.as_raw());
            if let Some(service) = self.services.values_mut().find(|service| service.has_process(pid)) {
                service.exited(status, Instant::now());
            }
        }
    }

    fn advance(&mut self, now: Instant) {
        for service in self.services.values_mut() {
            service.tick(now);
        }
        let queued = self.services.iter().filter(|(_, service)| service.is_queued());
        let ready: Vec<String> =
            queued.filter(|(_, service)| self.may_launch(service)).map(|(name, _)| name.clone()).collect();
        for name in ready {
            if let Some(service) = self.services.get_mut(&name) {
                service.launch(now);
            }
        }
    }

    /// Targets and units that do not exist here hold nobody up.
    fn may_launch(&self, service: &Service) -> bool {
        service.after().iter().all(|name| self.services.get(name).is_none_or(Service::is_settled))
    }
}
