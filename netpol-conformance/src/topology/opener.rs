//! A thread that opens sockets in namespaces, so that the threads of the runtime never leave their own.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc;
use std::thread;

use tokio::sync::oneshot;

use super::namespace::enter;

type Job = Box<dyn FnOnce(io::Result<()>) + Send>;

/// First of the ports that attempts speak from.
const FIRST_PORT: u16 = 32_768;

/// A handle to the thread; it ends with the last handle.
#[derive(Clone, Debug)]
pub(crate) struct Opener {
    jobs: mpsc::Sender<(Arc<OwnedFd>, Job)>,
    ports: Arc<AtomicU16>,
}

impl Opener {
    pub(crate) fn start() -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<(Arc<OwnedFd>, Job)>();
        thread::Builder::new().name("opener".to_owned()).spawn(move || {
            for (namespace, job) in queue {
                job(enter(&*namespace));
            }
        })?;
        Ok(Self { jobs, ports: Arc::default() })
    }

    /// Returns a port to speak from; it comes round again after 32 768 others.
    pub(crate) fn fresh_port(&self) -> u16 {
        FIRST_PORT | self.ports.fetch_add(1, Ordering::Relaxed)
    }

    /// Runs `open` inside `namespace`. It must be short: others wait behind it.
    pub(crate) async fn open<T: Send + 'static>(
        &self,
        namespace: &Arc<OwnedFd>,
        open: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (answer, receiver) = oneshot::channel();
        let job: Job = Box::new(move |entered| {
            // Nobody waits any more if the attempt has timed out.
            let _ = answer.send(entered.and_then(|()| open()));
        });
        self.jobs.send((Arc::clone(namespace), job)).map_err(|_| gone())?;
        receiver.await.map_err(|_| gone())?
    }
}

fn gone() -> io::Error {
    io::Error::other("the thread that opens sockets is gone")
}
