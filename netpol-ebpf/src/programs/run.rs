//! Programs on packets of tests, by `BPF_PROG_TEST_RUN`.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

use std::time::{Duration, Instant};

use aya::programs::{SchedClassifier, TestRun, TestRunOptions};

use super::{Programs, Side};

/// The size of `struct __sk_buff` and where two of its fields are.
///
/// Source: `include/uapi/linux/bpf.h`.
const CONTEXT: usize = 192;
const INGRESS_IFINDEX: usize = 36;
const IFINDEX: usize = 40;

impl Programs {
    /// Runs a program on a frame that passes an interface after it came in through `came_in` (0: from the node itself).
    /// Returns what the program returned and how long it took on average.
    pub(crate) fn run(
        &mut self,
        side: Side,
        frame: &[u8],
        interface: u32,
        came_in: u32,
        repeat: u32,
    ) -> (u32, Duration) {
        self.run_named(side.program(), frame, interface, came_in, repeat)
    }

    /// As [`Self::run`], with any program of the object.
    pub(crate) fn run_named(
        &mut self,
        name: &str,
        frame: &[u8],
        interface: u32,
        came_in: u32,
        repeat: u32,
    ) -> (u32, Duration) {
        let program: &mut SchedClassifier =
            self.object.program_mut(name).unwrap().try_into().unwrap();
        let mut context = [0; CONTEXT];
        context[INGRESS_IFINDEX..][..4].copy_from_slice(&came_in.to_ne_bytes());
        context[IFINDEX..][..4].copy_from_slice(&interface.to_ne_bytes());
        let options = TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&context),
            repeat,
            ..TestRunOptions::new()
        };
        let result = program.test_run(options).unwrap();
        (result.return_value, result.duration)
    }

    /// Loads the program that does nothing.
    pub(crate) fn load_nothing(&mut self) {
        let program: &mut SchedClassifier =
            self.object.program_mut("nothing").unwrap().try_into().unwrap();
        // It may be loaded already.
        drop(program.load());
    }

    /// Loads a program another time, and returns how long that took.
    pub(crate) fn load_again(&mut self, side: Side) -> Duration {
        let program: &mut SchedClassifier =
            self.object.program_mut(side.program()).unwrap().try_into().unwrap();
        program.unload().unwrap();
        let started = Instant::now();
        program.load().unwrap();
        started.elapsed()
    }

    /// Returns how many instructions the verifier followed in a program, and the size of its machine code in bytes.
    pub(crate) fn size(&mut self, side: Side) -> (u32, u32) {
        let program: &mut SchedClassifier =
            self.object.program_mut(side.program()).unwrap().try_into().unwrap();
        let info = program.info().unwrap();
        (info.verified_instruction_count().unwrap_or_default(), info.size_jitted())
    }
}
