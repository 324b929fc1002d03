//! `create`: folder, name, layers and volumes of a container that is not started yet. All that its program will need is
//! checked now, as far as it can be.

use anyhow::Result;
use images::Store;
use netsetup::Host;

use super::{Making, Order, Say, choose_volumes, image_facts, places, undo_failed};
use crate::events::{self, Event};
use crate::facts;
use crate::plan;
use crate::reservation::{self, Reservation};
use crate::volume::choose::Chosen;

/// Makes the container. After an error nothing of it is left.
pub fn create(order: &Order, say: Say<'_>) -> Result<()> {
    let roots = &order.engine.roots;
    let mut host = Host::open()?;
    let store = Store::open(&roots.root)?;
    // Held until the journal names the image, so that it isn't removed in between.
    let guard = store.lock_shared()?;
    let image = image_facts(&store, &order.request)?;
    let facts = facts::read_for(facts::Purpose::Create, &order.engine, &order.request, &mut host, None)?;
    let (chosen, volumes_guard) = choose_volumes(roots, &order.request, &image)?;
    let (journal, name) = reservation::begin(roots, &order.id, &order.request, &image, &chosen, order.session)?;
    drop((guard, volumes_guard));
    let mut making =
        Making { order, host: &mut host, netns: None, journal: &journal, image: &image, facts: &facts, say };
    make(&mut making, name, chosen).map_err(|error| undo_failed(order, &journal, error))
}

fn make(making: &mut Making<'_>, name: String, chosen: Chosen) -> Result<()> {
    let (roots, id) = (&making.order.engine.roots, &making.order.id);
    let reservation =
        Reservation { id: id.clone(), folder: roots.container(id), name, addresses: vec![], ports: vec![], chosen };
    let plan =
        plan::plan(&making.order.request, making.image, making.facts, &reservation, &places(&making.order.engine))?;
    making.make_folders(&plan)?;
    let state = making.state(&plan, &reservation)?;
    state.write(roots)?;
    let created = Event::container("create", &state);
    events::note_all(roots, events::of_creation(&state).into_iter().chain([created]));
    Ok(())
}
