//! The suite's peer for HTTP APIs.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Accepted, Answer, HttpPeer, HttpReply, HttpRequest, ScriptedPeer};

/// An HTTP API: how to read its requests, and how it answers.
pub trait HttpApi: Send + Sync + 'static {
    /// Reads the messages of a request, in order: one, unless the API has batches. Their [`provider_id`](Accepted::provider_id) is
    /// ignored.
    fn messages(&self, request: &HttpRequest) -> Vec<Accepted>;

    /// The answer to a request whose one message is accepted with this id, which has digits only.
    fn accept(&self, id: &str) -> HttpReply;

    /// The answer to a request whose one message gets [`RefuseMessage`](Answer::RefuseMessage), [`Busy`](Answer::Busy),
    /// [`RefuseCredentials`](Answer::RefuseCredentials), [`RateLimit`](Answer::RateLimit) or [`Unavailable`](Answer::Unavailable).
    ///
    /// It should repeat addresses and the key from the request, as a careless server does.
    fn refuse(&self, answer: Answer) -> HttpReply;

    /// The answer to a batch: for each message its id, or `None` if it is refused permanently. Panics by default.
    fn batch(&self, outcomes: &[Option<String>]) -> HttpReply {
        panic!("the API has no batches, and a request had {} messages", outcomes.len())
    }
}

/// A [`ScriptedPeer`] that speaks an [`HttpApi`].
#[derive(Debug)]
pub struct ScriptedHttp {
    peer: HttpPeer,
    record: Arc<Mutex<Record>>,
}

#[derive(Debug, Default)]
struct Record {
    planned: VecDeque<Answer>,
    /// The contents of messages that were refused permanently. They are refused again.
    refused: HashSet<String>,
    read: usize,
    accepted: Vec<Accepted>,
}

impl ScriptedHttp {
    /// Starts the peer on loopback.
    pub async fn start(api: impl HttpApi) -> Self {
        let record = Arc::<Mutex<Record>>::default();
        let shared = Arc::clone(&record);
        let peer = HttpPeer::with_handler(move |request| lock(&shared).reply(&api, api.messages(request))).await;
        Self { peer, record }
    }

    /// The base URL: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        self.peer.url()
    }
}

impl Record {
    fn reply(&mut self, api: &impl HttpApi, mut messages: Vec<Accepted>) -> HttpReply {
        self.read += messages.len();
        if messages.len() != 1 {
            let outcomes: Vec<_> = messages
                .into_iter()
                .map(|message| match self.answer_to(&message) {
                    Answer::Accept => Some(self.accept(message)),
                    _ => None,
                })
                .collect();
            return api.batch(&outcomes);
        }
        let message = messages.remove(0);
        match self.answer_to(&message) {
            Answer::Accept => api.accept(&self.accept(message)),
            Answer::Hang => HttpReply::Held(Box::new(api.accept(&self.accept(message)))),
            Answer::CloseAfterReading => HttpReply::Close,
            Answer::Garbage => HttpReply::Raw(b"220 mail.example.com ready for <bob.builder@example.org>\r\n".to_vec()),
            refusal => api.refuse(refusal),
        }
    }

    fn answer_to(&mut self, message: &Accepted) -> Answer {
        if self.refused.contains(&message.content) {
            return Answer::RefuseMessage;
        }
        let answer = self.planned.pop_front().unwrap_or(Answer::Accept);
        if answer == Answer::RefuseMessage {
            self.refused.insert(message.content.clone());
        }
        answer
    }

    fn accept(&mut self, mut message: Accepted) -> String {
        let id = (1_000_000 + self.accepted.len()).to_string();
        message.provider_id = Some(id.clone());
        self.accepted.push(message);
        id
    }
}

fn lock(record: &Mutex<Record>) -> MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ScriptedPeer for ScriptedHttp {
    fn plan(&self, answer: Answer) {
        match answer {
            Answer::CloseBeforeReading => self.peer.next(HttpReply::ResetUnread),
            answer => lock(&self.record).planned.push_back(answer),
        }
    }

    fn release(&self) {
        self.peer.release();
    }

    fn read(&self) -> usize {
        lock(&self.record).read
    }

    fn accepted(&self) -> Vec<Accepted> {
        lock(&self.record).accepted.clone()
    }
}
