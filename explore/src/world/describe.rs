//! Actions in words, for people who read a trace.

use std::fmt;

use flowkit_core::message::{Body, Envelope};
use flowkit_core::port::{StoreRequest, TransportRequest};

use super::handler::{Doing, Move};
use super::{Action, At, Late, Process, World};

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Coordinator(at) => write!(f, "c{}", at + 1),
            Self::Worker(at) => write!(f, "w{}", at + 1),
        }
    }
}

fn message(envelope: &Envelope) -> String {
    let mut text = envelope.body.kind().to_owned();
    if let Body::Heartbeat(heartbeat) = &envelope.body {
        for run in &heartbeat.runs {
            text.push_str(&format!(" {}#{}", run.node_id, run.token));
        }
    }
    if let (Some(node), Some(token)) = (&envelope.node_id, envelope.lease_no) {
        text.push_str(&format!(" {node}#{token}"));
    }
    if let Some(seq) = envelope.seq {
        text.push_str(&format!(" seq {seq}"));
    }
    match &envelope.body {
        Body::BatchOk(batch) => text.push_str(&format!(" {}", batch.batch_uid)),
        Body::TaskCancel(cancel) => text.push_str(&format!(" {:?}", cancel.reason)),
        Body::TaskReleased(released) => text.push_str(&format!(" {:?}", released.reason)),
        Body::TaskRefused(refused) => text.push_str(&format!(" {:?}", refused.reason)),
        _ => {}
    }
    text
}

fn store_request(request: &StoreRequest) -> String {
    match request {
        StoreRequest::Commit(commit) => {
            format!(
                "commit {} of epoch {}, next {}",
                commit.seq, commit.epoch, commit.next
            )
        }
        StoreRequest::ReadGrants { .. } => "the look at grants".to_owned(),
        other => {
            let text = format!("{other:?}");
            let end = text.find([' ', '(', '{']).unwrap_or(text.len());
            text[..end].to_owned()
        }
    }
}

impl World {
    fn call_in_words(&self, process: Process, index: usize) -> String {
        let Some(call) = self.calls(process).get(index) else {
            return String::new();
        };
        match &call.at {
            At::Store(request) => format!("{} happens", store_request(request)),
            At::Transport(TransportRequest::Append { envelope, .. }) => {
                format!("{} stands in the stream", message(envelope))
            }
            At::Transport(_) => "the stream's bounds are read".to_owned(),
            At::StoreDone(result, asked) => {
                let what = asked
                    .as_ref()
                    .map_or("its commit".to_owned(), store_request);
                match result {
                    Ok(_) => format!("hears of {what}"),
                    Err(error) => format!("hears of {what}: {:?}", error.kind),
                }
            }
            At::TransportDone(_, Some(envelope)) => {
                format!("hears that {} is sent", message(envelope))
            }
            At::TransportDone(_, None) => "hears of the stream's bounds".to_owned(),
        }
    }

    /// An action that is possible in this state, in words.
    #[must_use]
    pub fn describe(&self, action: Action) -> String {
        match action {
            Action::Call(process, index) => {
                format!("{process}: {}", self.call_in_words(process, index))
            }
            Action::Fetch(at, take) => {
                let process = Process::Coordinator(at);
                format!("{process}: folds {take} of the stream")
            }
            Action::Announcements(at) => {
                format!("{}: reads the announcements", Process::Coordinator(at))
            }
            Action::Inbox(at, take) => {
                let mail = self.mail_of(at).take(take);
                let mail: Vec<String> = mail.map(|i| message(&self.mail[i].envelope)).collect();
                format!("{}: reads {}", Process::Worker(at), mail.join(", "))
            }
            Action::Handler(at, run, made) => self.move_in_words(at, run, made.0),
            Action::Wake(process) => format!("{process}: a timer is due"),
            Action::TimePasses => {
                let until = self.next_timer().unwrap_or(self.now);
                format!("{} ms pass", until.saturating_sub(self.now))
            }
            Action::Cancel => "the client cancels".to_owned(),
            Action::Crash(process, true) => format!("{process} crashes"),
            Action::Crash(process, false) => format!("{process} crashes, unread messages are lost"),
            Action::Restart(at) => format!("{} starts again", Process::Worker(at)),
            Action::TakeOver(at) => format!(
                "the lease on the shard lapses, {} starts and takes it",
                Process::Coordinator(at)
            ),
            Action::NoAnswer(process, index) => {
                let what = match self.calls(process).get(index).map(|call| &call.at) {
                    Some(At::Store(request)) => store_request(request),
                    Some(At::Transport(TransportRequest::Append { envelope, .. })) => {
                        message(envelope)
                    }
                    _ => String::new(),
                };
                format!("{process}: gets no answer to {what}, which is on its way")
            }
            Action::Delay(index) => {
                format!("{} is delayed", message(&self.mail[index].envelope))
            }
            Action::LoseEvent(process, index) => {
                format!("lost, {process}: {}", self.call_in_words(process, index))
            }
            Action::LoseMail(index) => {
                format!("{} is lost", message(&self.mail[index].envelope))
            }
            Action::DoubleEvent(process, index) => {
                format!(
                    "{process}: {}, a copy is on its way",
                    self.call_in_words(process, index)
                )
            }
            Action::DoubleMail(index) => {
                format!(
                    "a copy of {} is on its way",
                    message(&self.mail[index].envelope)
                )
            }
            Action::Late(index) => match &self.late[index] {
                Late::Commit(commit) => format!("late: commit {} happens", commit.seq),
                Late::Event(process, _, envelope) => {
                    format!(
                        "late: {} of {process} stands in the stream",
                        message(envelope)
                    )
                }
                Late::Mail(mail) => format!("late: {} arrives", message(&mail.envelope)),
            },
            Action::Pause(ms) => format!("{ms} ms pass, and what is under way stays so"),
        }
    }

    fn move_in_words(&self, at: usize, run: flowkit_core::worker::RunId, made: Move) -> String {
        let process = Process::Worker(at);
        let hand = self.workers[at].process.as_ref();
        let handler = hand.and_then(|hand| hand.handlers.get(&run));
        let Some(handler) = handler else {
            return String::new();
        };
        let of = match handler.doing {
            Doing::Batch { number, .. } | Doing::Saving { number } => format!("b{number}"),
            Doing::Finalizing => "finalize".to_owned(),
            Doing::Nothing => String::new(),
        };
        let does = match made {
            Move::Save => "saves a checkpoint of",
            Move::End => "has done",
            Move::Stop => "stops",
        };
        format!(
            "{process}: the handler of n{}#{} {does} {of}",
            handler.node + 1,
            handler.token
        )
    }
}
