//! Whoever tells the stories to a broker, and writes down what an agent hears of it.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use dayfly_agent::case::{Case, Terms};
use dayfly_agent::client::{Client, Outcome};
use dayfly_agent::errors::Error;
use dayfly_agent::held::Held;
use dayfly_agent::render;
use dayfly_agent::session::Session;
use dayfly_agent::testkit::{ByHand, Kit};
use dayfly_agent::ticket::{Ask, Ticket};
use dayfly_proto::v1;
use dayfly_proto::v1::approval_service_client::ApprovalServiceClient;
use dayfly_proto::v1::operator_service_client::OperatorServiceClient;
use dayfly_proto::v1::revocation_target::Target;
use dayfly_tests::shop::{AGENT, Shop};
use dayfly_tests::world::World;
use dayfly_verifier::dossier::DECISION_NAMESPACE;
use dayfly_verifier::id::{ExchangeId, GrantId};
use dayfly_verifier::request::{Answer, Narrowing};
use dayfly_verifier::scope::Scope;
use dayfly_verifier::time::{Clock as _, Timestamp};

/// Another workload of the shop.
const OTHER: &str = "spiffe://shop.test/agent/other";
/// Who decides in the shop.
const APPROVER: &str = "ana";

/// What becomes of a request.
#[derive(Clone)]
pub(super) enum Fate {
    Granted,
    Approved(Narrowing),
    Denied,
    Unanswered,
    Refused,
}

/// A broker, and what happens around it.
enum Side {
    Kit(Kit),
    Real { world: Box<World>, approver: Arc<Session>, operator: Arc<Session> },
}

/// Tells the stories to one broker, and writes down what is heard.
pub(super) struct Teller {
    side: Side,
    pub(super) agent: Client,
    pub(super) other: Client,
    pub(super) clock: Arc<ByHand>,
    /// When the story began, and the tokens that came up in it.
    began: Timestamp,
    tokens: Vec<String>,
    stories: u32,
    pub(super) page: String,
}

impl Teller {
    pub(super) fn of_kit() -> Self {
        let kit = Kit::new();
        kit.stand_still();
        let client = |id: &str| kit.client_as(&id.parse().unwrap());
        let (agent, other, clock) = (client(AGENT), client(OTHER), kit.clock());
        Self::new(Side::Kit(kit), agent, other, clock)
    }

    pub(super) async fn of_broker() -> Self {
        let world = World::start(7).await;
        // Times are told in whole seconds.
        let past = world.clock.now().since(world.clock.now().floor_to_second());
        world.clock.forward(Duration::from_secs(1).saturating_sub(past));
        let agent = Client::new(world.session(AGENT).await);
        let other = Client::new(world.session(OTHER).await);
        let approver = world.session(&Shop::person(APPROVER)).await;
        let operator = world.session(&Shop::person("olga")).await;
        let clock = world.clock.clone();
        Self::new(Side::Real { world: Box::new(world), approver, operator }, agent, other, clock)
    }

    fn new(side: Side, agent: Client, other: Client, clock: Arc<ByHand>) -> Self {
        let (began, page) = (clock.now(), String::new());
        Self { side, agent, other, clock, began, tokens: Vec::new(), stories: 0, page }
    }

    pub(super) fn story(&mut self, name: &str) {
        (self.began, self.stories) = (self.clock.now(), self.stories.saturating_add(1));
        self.tokens.clear();
        self.page.push_str(&format!("\n{name}\n"));
    }

    pub(super) fn forward(&self, secs: u64) {
        match &self.side {
            Side::Kit(kit) => kit.forward(Duration::from_secs(secs)),
            Side::Real { world, .. } => world.clock.forward(Duration::from_secs(secs)),
        }
    }

    fn at(&self, time: Timestamp) -> String {
        match time >= self.began {
            true => format!("+{}s", time.since(self.began).as_secs_f64()),
            false => format!("-{}s", self.began.since(time).as_secs_f64()),
        }
    }

    fn heard(&mut self, what: &str, told: &str) {
        self.page.push_str(&format!("  {what:<22} {told}\n"));
    }

    pub(super) fn case(&mut self, what: &str, case: &Result<Case, Error>) {
        let told = match case {
            Err(error) => no(error),
            Ok(case) => {
                let terms = case.terms.as_ref().map(|terms| {
                    let Terms { from, until, scope, uses } = terms;
                    let (from, until) = (self.at(*from), self.at(*until));
                    format!("; {from} to {until}, {}, uses {uses:?}", text(scope))
                });
                let by = case.approved_by.join(" ");
                let until = match case.pending_until == Timestamp::default() {
                    true => String::new(),
                    false => format!(" until {}", self.at(case.pending_until)),
                };
                let (stands, because) = (case.standing.as_str(), &case.because);
                format!("{stands}{until} [{by}] `{because}`{}", terms.unwrap_or_default())
            }
        };
        self.heard(what, &told);
    }

    pub(super) fn token(&mut self, what: &str, held: &Result<Held, Error>) {
        let told = match held {
            Err(error) => no(error),
            Ok(held) => {
                let bytes = held.token.expose();
                let known = self.tokens.iter().position(|token| token == bytes);
                let number = known.unwrap_or_else(|| {
                    let next = self.tokens.len();
                    self.tokens.push(bytes.to_owned());
                    next
                });
                let claims = &held.claims;
                let (issued, ends) = (self.at(claims.issued_at), self.at(claims.expires_at));
                let (online, counted) = (claims.online, claims.counted);
                let scope = text(&claims.scope);
                let of = format!("{} for {}", claims.subject, claims.audience);
                format!(
                    "token {number} {issued} to {ends}, {scope}, online {online}, \
                     counted {counted}, {of}"
                )
            }
        };
        self.heard(what, &told);
    }

    /// A ticket of what comes to that fate; nothing is asked yet.
    pub(super) fn draw(&self, fate: &Fate) -> Ticket {
        Ticket::draw(self.wish(fate), self.clock.now()).unwrap()
    }

    pub(super) fn wish(&self, fate: &Fate) -> Ask {
        let (right, most, uses) = match fate {
            Fate::Granted => ("refund orders/prod/o-17", Some("amount <= 500"), 1),
            Fate::Refused => ("refund orders/prod/o-17", Some("amount <= 100001"), 1),
            Fate::Approved(_) | Fate::Denied | Fate::Unanswered => {
                ("read orders/prod/o-17", None, 9)
            }
        };
        let constraints = most.map(|most| most.parse().unwrap());
        let scope = Scope::new([right.parse().unwrap()], constraints).unwrap();
        let audience = "spiffe://shop.test/gateway/orders".parse().unwrap();
        let task = format!("story-{}", self.stories).parse().unwrap();
        let mut ask = Ask::new(audience, scope, task, "customer-support".parse().unwrap());
        ask.uses = NonZeroU32::new(uses);
        ask
    }

    /// Files the request; nobody has said anything yet.
    pub(super) async fn file(&mut self, ticket: &Ticket, fate: &Fate) -> Option<Case> {
        let soon = Duration::from_secs(1);
        match (&self.side, fate) {
            (Side::Real { .. }, _) => {}
            (Side::Kit(kit), Fate::Granted) => kit.grant(),
            (Side::Kit(kit), Fate::Approved(to)) => kit.approve_narrowed(soon, to.clone()),
            (Side::Kit(kit), Fate::Denied) => kit.deny_after(soon, APPROVER),
            (Side::Kit(kit), Fate::Unanswered) => kit.never(),
            (Side::Kit(kit), Fate::Refused) => {
                let why = "refunds in production must be bounded to 1000.00 or less: constrain \
                           `amount`";
                kit.refuse("refund-limit", why);
            }
        }
        let filed = self.agent.file(ticket).await;
        self.case("file", &filed);
        filed.ok()
    }

    /// A second passes, and people say what they say.
    pub(super) async fn decide(&self, case: &Case, fate: &Fate) {
        self.forward(1);
        let Side::Real { world, approver, .. } = &self.side else { return };
        let mut client = ApprovalServiceClient::new(approver.channel());
        let grant_id = case.grant.to_string();
        match fate {
            Fate::Granted | Fate::Unanswered | Fate::Refused => {}
            Fate::Denied => {
                let (digest, reason) = (case.digest.to_string(), String::new());
                client.deny(v1::DenyRequest { grant_id, digest, reason }).await.unwrap();
            }
            Fate::Approved(narrowing) => {
                let asked = v1::GetRequestRequest { grant_id: grant_id.clone() };
                let shown = client.get_request(asked).await.unwrap().into_inner();
                let decision = Some(sign(world, &shown.canonical_request, narrowing.clone()));
                let approve =
                    v1::ApproveRequest { grant_id, decision, ..v1::ApproveRequest::default() };
                client.approve(approve).await.unwrap();
            }
        }
    }

    /// Asks, and is answered.
    pub(super) async fn ask(&mut self, fate: &Fate) -> (Ticket, Case) {
        let ticket = self.draw(fate);
        let case = self.file(&ticket, fate).await.unwrap();
        self.decide(&case, fate).await;
        (ticket, case)
    }

    pub(super) async fn revoke(&self, grant: &GrantId) {
        match &self.side {
            Side::Kit(kit) => kit.revoke(grant),
            Side::Real { operator, .. } => {
                let target =
                    Some(v1::RevocationTarget { target: Some(Target::Grant(grant.to_string())) });
                let message = v1::RevokeRequest { target, reason: "over".into() };
                let mut client = OperatorServiceClient::new(operator.channel());
                client.revoke(message).await.unwrap();
            }
        }
    }

    pub(super) async fn look(&mut self, ticket: &Ticket) {
        let case = self.agent.look(ticket).await;
        self.case("look", &case);
    }

    pub(super) async fn exchange(&mut self, what: &str, ticket: &Ticket) -> ExchangeId {
        let id = self.agent.draw_exchange().unwrap();
        self.exchange_as(what, ticket, &id).await;
        id
    }

    pub(super) async fn exchange_as(&mut self, what: &str, ticket: &Ticket, id: &ExchangeId) {
        let held = self.agent.exchange(ticket, id).await;
        self.token(&format!("exchange {what}"), &held);
    }

    pub(super) async fn end(&mut self, ticket: &Ticket) {
        for (what, outcome) in [("succeeded", Outcome::Succeeded), ("failed", Outcome::Failed)] {
            let ended = self.agent.complete(ticket, outcome).await;
            self.case(&format!("complete {what}"), &ended);
        }
        let ended = self.agent.cancel(ticket).await;
        self.case("cancel", &ended);
    }
}

fn no(error: &Error) -> String {
    let advice = error.advice();
    format!("{} (next: {}): {}", advice.code, advice.next_action.as_str(), advice.message)
}

fn text(scope: &Scope) -> String {
    let rights = scope.rights().map(ToString::to_string);
    let all: Vec<_> = rights.chain(scope.constraints().map(ToString::to_string)).collect();
    all.join(", ")
}

/// The approver's decision on what they were shown.
fn sign(world: &World, canonical: &[u8], narrowing: Narrowing) -> v1::SignedDecision {
    let (person, answer) = (APPROVER.parse().unwrap(), Answer::Approve(narrowing));
    let shown = render::request(canonical).unwrap();
    let prepared = shown.decide(person, answer, None, world.clock.now()).unwrap();
    let key = ssh_key::PrivateKey::read_openssh_file(&world.shop.key(APPROVER)).unwrap();
    let signature = key.sign(DECISION_NAMESPACE, ssh_key::HashAlg::Sha512, prepared.bytes());
    v1::SignedDecision {
        statement: prepared.bytes().to_vec().into(),
        signature: signature.unwrap().to_pem(ssh_key::LineEnding::LF).unwrap(),
    }
}
