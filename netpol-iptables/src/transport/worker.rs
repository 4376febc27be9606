//! A thread that does what others ask, always in the network namespace in which it was started.
//!
//! A child process gets the network namespace of the thread that spawns it, and a new thread that of the thread that
//! makes it. So a thread of our own keeps the namespace in which the dataplane was opened, whoever calls later.

use std::io;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::error::IptablesError;

type Job = Box<dyn FnOnce() + Send>;

/// The thread. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Worker {
    jobs: mpsc::Sender<Job>,
}

impl Worker {
    /// Starts the thread in the network namespace of the calling one.
    pub(super) fn start() -> io::Result<Self> {
        let (sender, jobs) = mpsc::channel::<Job>();
        let work = move || jobs.into_iter().for_each(|job| job());
        thread::Builder::new().name("netpol-iptables".to_owned()).spawn(work)?;
        Ok(Self { jobs: sender })
    }

    /// Lets the thread do something and returns the result. Gives up after `limit`; the thread goes on then, and is
    /// late for what comes next.
    pub(super) fn call<T: Send + 'static>(
        &self,
        operation: &'static str,
        limit: Duration,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, IptablesError> {
        let (sender, result) = mpsc::sync_channel(1);
        let answer = move || drop(sender.send(job()));
        let gone =
            |_| IptablesError::Process { operation, source: io::ErrorKind::BrokenPipe.into() };
        self.jobs.send(Box::new(answer)).map_err(gone)?;
        result.recv_timeout(limit).map_err(|error| match error {
            mpsc::RecvTimeoutError::Timeout => {
                IptablesError::TimedOut { command: operation.to_owned(), limit }
            }
            mpsc::RecvTimeoutError::Disconnected => {
                IptablesError::Process { operation, source: io::ErrorKind::BrokenPipe.into() }
            }
        })
    }
}
