//! Faults over a device in memory: what happens, how often, and that the books balance.

use turnpike_dataplane::mem::MemDevice;

use super::*;

fn number(frame: &[u8]) -> u32 {
    u32::from_be_bytes(frame.try_into().unwrap())
}

fn run(faults: Faults, frames: u32) -> (Vec<u32>, Vec<u32>, Arc<Books>) {
    let mut device = Faulty::new(MemDevice::new(512), faults);
    let books = device.books();
    let (mut received, mut sent) = (Vec::new(), Vec::new());
    let mut turn = |device: &mut Faulty<MemDevice>, received: &mut Vec<u32>| {
        let mut batch = Batch::new();
        device.receive(Port::Access, &mut batch);
        for mut frame in batch.drain(..) {
            received.push(number(device.bytes(&mut frame)));
            device.transmit(Port::Access, frame).unwrap();
        }
        device.flush();
        sent.extend(
            device
                .inner_mut()
                .take(Port::Access)
                .iter()
                .map(|f| number(f)),
        );
        let accounts = device.accounts();
        assert_eq!(accounts.held, accounts.total);
    };
    for n in 0..frames {
        assert!(device.inner_mut().inject(Port::Access, &n.to_be_bytes()));
        turn(&mut device, &mut received);
    }
    let end = Instant::now() + 20 * HOLD;
    while Instant::now() < end {
        turn(&mut device, &mut received);
    }
    assert_eq!(
        device.accounts(),
        device.inner().accounts(),
        "nothing stays behind"
    );
    (received, sent, books)
}

fn balance(tally: Tally) {
    assert_eq!(
        tally.seen + tally.copies,
        tally.passed + tally.lost + tally.refused
    );
}

#[test]
fn without_faults_nothing_happens() {
    let (received, sent, books) = run(Faults::default(), 1000);
    let all: Vec<u32> = (0..1000).collect();
    assert_eq!(received, all);
    assert_eq!(sent, all);
    assert_eq!(books.receive.tally().passed, 1000);
    balance(books.transmit.tally());
}

#[test]
fn every_fault_happens_and_the_books_balance() {
    let faults = Faults {
        loss: 0.05,
        duplicate: 0.05,
        reorder: 0.05,
        places: 0,
        seed: 1,
    };
    let (received, sent, books) = run(faults, 4000);
    for (passed, tally) in [
        (&received, books.receive.tally()),
        (&sent, books.transmit.tally()),
    ] {
        balance(tally);
        assert_eq!(tally.passed, passed.len() as u64);
        for count in [tally.lost, tally.copies, tally.reordered] {
            // Five per cent of some four thousand.
            assert!((100..350).contains(&count), "{tally:?}");
        }
    }
    assert_eq!(books.receive.tally().seen, 4000);
    assert!(received.windows(2).any(|pair| pair[0] > pair[1]));
    assert!(received.windows(2).any(|pair| pair[0] == pair[1]));
}

#[test]
fn nobody_is_later_than_by_the_places() {
    for places in [1, 8] {
        let faults = Faults {
            reorder: 0.05,
            places,
            ..Faults::default()
        };
        let (received, ..) = run(faults, 4000);
        let late = |at: usize| {
            let number = received[at];
            received[..at].iter().filter(|n| **n > number).count()
        };
        let latest = (0..received.len()).map(late).max();
        assert_eq!(latest, Some(places as usize));
    }
}

#[test]
fn the_same_seed_is_the_same_chance() {
    let faults = Faults {
        loss: 0.1,
        duplicate: 0.1,
        ..Faults::default()
    };
    assert_eq!(run(faults, 500).1, run(faults, 500).1);
    assert_ne!(run(faults, 500).1, run(Faults { seed: 1, ..faults }, 500).1);
}

#[test]
fn descriptions() {
    assert_eq!(
        "loss=1%,duplicate=0.5%, reorder=0.01,places=8,seed=7".parse(),
        Ok(Faults {
            loss: 0.01,
            duplicate: 0.005,
            reorder: 0.01,
            places: 8,
            seed: 7
        })
    );
    for bad in [
        "loss",
        "loss=2",
        "loss=-1%",
        "corrupt=1%",
        "seed=x",
        "places=0",
        "places=65",
        "loss=nan",
    ] {
        assert!(bad.parse::<Faults>().is_err(), "{bad}");
    }
}
