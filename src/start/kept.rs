//! Starting a container that was made before, by `create` or an earlier run: folder, name, changes and log stay, all
//! else is made anew.

use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Result, anyhow};
use images::Store;
use netsetup::Host;

use super::{Container, Making, Order, Run, Say, begin_netns, image_facts};
use crate::containers::NO_SUCH;
use crate::error::Failure;
use crate::facts;
use crate::files;
use crate::journal::Journal;
use crate::monitor::cleaner::Cleaner;
use crate::monitor::control;
use crate::plan::image::ImageFacts;
use crate::plan::paths::ContainerFolder;
use crate::recover::{self, Claim, Scope};
use crate::request::{ImageSource, RunRequest};
use crate::state::{State, Status};
use crate::view;
use crate::volume::choose::Chosen;

/// How long a container that is just ending may take to let go of its journal.
const PATIENCE: Duration = Duration::from_secs(20);
/// docker's exit code of a container that could not be started for another reason than its program.
const NOT_STARTED: i32 = 128;

/// [`Failure::code`] where the container has been started by another minidock: no failure for most.
pub const ALREADY_RUNS: u8 = 0;

/// Takes the container over from whoever had it last, and starts it.
pub(super) fn start(order: &mut Order, stdin: Option<OwnedFd>, say: Say<'_>) -> Result<Container> {
    let (journal, mut state) = take(order)?;
    order.request = RunRequest { explain: false, ..view::request(&state)? };
    (state.stopped_by_hand, state.restart_count) = (false, 0);
    let cleaner = Cleaner::fork(&order.engine.roots, &order.id, &journal)?;
    match run(order, &journal, &state, stdin, say) {
        Ok((state, run)) => Ok(Container { journal, cleaner, state, run }),
        Err(error) => {
            let error = not_started(order, &journal, &mut state, error);
            cleaner.dismiss();
            Err(error)
        }
    }
}

/// One run of a container whose journal this process holds. An error leaves the undo to the caller.
pub fn run(
    order: &Order,
    journal: &Journal,
    state: &State,
    stdin: Option<OwnedFd>,
    say: Say<'_>,
) -> Result<(State, Run)> {
    let mut host = Host::open()?;
    let netns = begin_netns(&order.request);
    let image = image(&Store::open(&order.engine.roots.root)?, state, &order.request)?;
    let facts = facts::read(&order.engine, &order.request, &mut host, order.early_facts.take())?;
    if state.auto_remove && !state.started.is_empty() {
        forget_volatile(order)?;
    }
    let mut making = Making { order, host: &mut host, netns, journal, image: &image, facts: &facts, say };
    making.make(state.name.clone(), Some(state), Chosen::of(state), stdin)
}

/// The journal's lock and the state, once nobody else has the container.
fn take(order: &Order) -> Result<(Journal, State)> {
    let (roots, id) = (&order.engine.roots, &order.id);
    let no_such = || anyhow!("{NO_SUCH}{}", recover::short(id));
    match recover::claim(roots, id, PATIENCE)? {
        Claim::Gone => Err(no_such()),
        Claim::Running(state) => Err(anyhow!(Failure {
            code: ALREADY_RUNS,
            message: format!("container {} is already running", state.name)
        })),
        Claim::Ours(mut journal) => {
            recover::settle(roots, id, &journal)?;
            let state = State::read(&roots.container(id))?.ok_or_else(no_such)?;
            journal.renew(recover::present())?;
            Ok((journal, state))
        }
    }
}

/// What is left of a failed start: the container as it was, with the reason in its state.
pub fn not_started(order: &Order, journal: &Journal, state: &mut State, error: anyhow::Error) -> anyhow::Error {
    let roots = &order.engine.roots;
    let mut problems = match state.auto_remove {
        true => recover::remove(roots, &order.id, journal, Scope::Container),
        false => recover::undo(roots, journal, Scope::Run),
    };
    control::remove(&roots.container(&order.id));
    let failure = Failure::from(error);
    if !state.auto_remove {
        (state.process, state.monitor) = (None, None);
        state.attachments.clear();
        state.error = failure.message.clone();
        state.exit_code =
            if failure.code == crate::error::ENGINE_FAILED { NOT_STARTED } else { i32::from(failure.code) };
        if state.status != Status::Created {
            state.status = Status::Exited;
        }
        problems.extend(state.write(roots).err());
    }
    let error = anyhow!(failure);
    match recover::first_error(problems) {
        Ok(()) => error,
        Err(problem) => error.context(format!("and something is left over: {}", crate::error::text(&problem))),
    }
}

/// The very image that it was made of, whatever its name means by now.
fn image(store: &Store, state: &State, request: &RunRequest) -> Result<ImageFacts> {
    match &request.image {
        ImageSource::Rootfs(_) => image_facts(store, request),
        ImageSource::Name(_) | ImageSource::Archive(_) => {
            Ok(ImageFacts::of(&state.image, &store.find(&state.image_id)?))
        }
    }
}

/// The overlay of a `--rm` container is mounted `volatile`, which the kernel only does once for a workspace: an unsynced
/// one may be damaged after a crash (Documentation/filesystems/overlayfs.rst). Ours has seen none, or its journal would
/// have been undone.
fn forget_volatile(order: &Order) -> Result<()> {
    let work = ContainerFolder::new(&order.engine.roots.container(&order.id)).work();
    files::empty_folder(&work)
}
