//! Requests and answers, the key that joins them, and how untrusted text is quoted in a prompt.

use serde::{Deserialize, Serialize, Serializer};

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The instructions.
    System,
    /// The material.
    User,
    /// The model, in examples.
    Assistant,
}

/// One message of a chat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
}

impl Message {
    /// Instructions.
    pub fn system(content: impl Into<String>) -> Self {
        Self { role: Role::System, content: content.into() }
    }

    /// Material.
    pub fn user(content: impl Into<String>) -> Self {
        Self { role: Role::User, content: content.into() }
    }
}

/// How the model is to answer. Part of the key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// 0 takes the likeliest token.
    #[serde(serialize_with = "shortest")]
    pub temperature: f64,
    /// Share of the probability that sampling looks at.
    #[serde(serialize_with = "shortest")]
    pub top_p: f64,
    /// Longest answer, in tokens.
    pub max_tokens: u32,
    /// For servers that can repeat a sample.
    pub seed: u64,
    /// JSON Schema of the answer; none for free text.
    #[serde(default)]
    pub schema: Option<serde_json::Value>,
    /// Answers to choose from. Where there are any, nothing is written: the answer is a JSON object of the labels'
    /// log-probabilities as the answer's first token, in the order given here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<String>>,
}

impl Parameters {
    /// The likeliest answer, as free text.
    pub fn greedy(max_tokens: u32) -> Self {
        Self { temperature: 0.0, top_p: 1.0, max_tokens, seed: 0, schema: None, labels: None }
    }

    /// The probabilities of these answers.
    pub fn scores(labels: &[&str]) -> Self {
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        Self { labels: Some(labels), ..Self::greedy(1) }
    }
}

/// Writes 0.0 as `0`, so that the canonical text does not depend on the language that wrote it.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn shortest<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    let whole = value.trunc() as i64;
    if value.fract() == 0.0 && value.abs() < 1e15 {
        serializer.serialize_i64(whole)
    } else {
        serializer.serialize_f64(*value)
    }
}

/// A question to a language model.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The model's name. The same name must always mean the same weights.
    pub model: String,
    /// Name and version of the prompt, such as `judge-1`.
    pub prompt: String,
    /// How the model is to answer.
    pub parameters: Parameters,
    /// 0, or how often the same was asked before because the answer could not be used.
    pub attempt: u32,
    /// The chat.
    pub messages: Vec<Message>,
    /// What it is about, such as ``query `7` (sw)``: for messages to people only, not part of the key.
    pub about: String,
}

impl Request {
    /// What the key is made of: compact JSON of `[model, prompt, parameters, attempt, messages]`, with the parameters
    /// in the order of [`Parameters`] and whole numbers written without a point.
    pub fn canonical(&self) -> String {
        let content = (&self.model, &self.prompt, &self.parameters, self.attempt, &self.messages);
        serde_json::to_string(&content).expect("strings and finite numbers can be written as JSON")
    }

    /// 32 hexadecimal digits of BLAKE3 over [`canonical`](Self::canonical).
    pub fn key(&self) -> String {
        key_of(&self.canonical())
    }

    /// Tokens of the messages, [estimated](estimate_tokens).
    pub fn prompt_tokens(&self) -> u64 {
        self.messages.iter().map(|message| estimate_tokens(&message.content)).sum()
    }

    /// Tokens of the messages, estimated, and of the longest answer.
    pub fn tokens_at_most(&self) -> u64 {
        self.prompt_tokens() + u64::from(self.parameters.max_tokens)
    }
}

pub(super) fn key_of(canonical: &str) -> String {
    blake3::hash(canonical.as_bytes()).to_hex().as_str()[..32].to_owned()
}

/// What a model said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The raw text.
    pub text: String,
    /// Tokens of the request as the server counted them; [estimated](estimate_tokens) where it did not.
    pub prompt_tokens: u64,
    /// Tokens of the answer, likewise.
    pub completion_tokens: u64,
}

/// Quotes untrusted text: `<tag>`, the text without anything that could close the tag, `</tag>`, each on its line.
pub fn fence(tag: &str, text: &str) -> String {
    format!("<{tag}>\n{}\n</{tag}>", text.replace("</", "< /").trim())
}

/// A guess at the number of tokens: a quarter token for every ASCII character, one for every other.
///
/// *Units*: tokens. About right for English and East Asia, high for Cyrillic and Arabic script; scripts that a model's
/// vocabulary hardly knows, such as Telugu's, can need twice as many.
pub fn estimate_tokens(text: &str) -> u64 {
    let (ascii, other) =
        text.chars().fold(
            (0_u64, 0_u64),
            |(ascii, other), character| {
                if character.is_ascii() { (ascii + 1, other) } else { (ascii, other + 1) }
            },
        );
    ascii.div_ceil(4) + other
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request() -> Request {
        Request {
            model: "m".into(),
            prompt: "judge-1".into(),
            parameters: Parameters::greedy(32),
            attempt: 0,
            messages: vec![Message::system("s"), Message::user("ü \"q\"")],
            about: "query `1` (en)".into(),
        }
    }

    /// Golden: Python 3.11, blake3 1.0.11.
    /// `blake3(json.dumps(["m","judge-1",{"temperature":0,"top_p":1,"max_tokens":32,"seed":0,"schema":None},0,
    /// [{"role":"system","content":"s"},{"role":"user","content":"ü \"q\""}]],
    /// separators=(",",":"), ensure_ascii=False).encode()).hexdigest()[:32]`
    #[test]
    fn the_key_is_fixed() {
        let canonical = r#"["m","judge-1",{"temperature":0,"top_p":1,"max_tokens":32,"seed":0,"schema":null},0,[{"role":"system","content":"s"},{"role":"user","content":"ü \"q\""}]]"#;
        assert_eq!(request().canonical(), canonical);
        assert_eq!(request().key(), "a6cd1f6ebef5d2b39ed6eef5633c5495");
    }

    #[test]
    fn every_part_but_the_remark_changes_the_key() {
        let mut changed: Vec<Request> = vec![request(); 7];
        changed[0].model = "n".into();
        changed[1].prompt = "judge-2".into();
        changed[2].parameters.temperature = 0.4;
        changed[3].attempt = 1;
        changed[4].messages[1].content.push(' ');
        changed[5].parameters.schema = Some(serde_json::json!({}));
        changed[6].parameters.labels = Some(vec!["yes".into()]);
        for other in changed {
            assert_ne!(other.key(), request().key());
        }
        assert_eq!(Request { about: String::new(), ..request() }.key(), request().key());
    }

    #[test]
    fn fractions_stay_fractions() {
        let parameters = Parameters { temperature: 0.7, top_p: 0.4, ..Parameters::greedy(1) };
        let text = serde_json::to_string(&parameters).unwrap();
        assert!(text.starts_with(r#"{"temperature":0.7,"top_p":0.4,"#), "{text}");
        assert_eq!(serde_json::from_str::<Parameters>(&text).unwrap(), parameters);
    }

    #[test]
    fn tokens_are_guessed_by_script() {
        assert_eq!(estimate_tokens("eight ch"), 2);
        assert_eq!(estimate_tokens("東京 x"), 3);
    }

    proptest! {
        #[test]
        fn no_text_closes_its_fence(text in ".*") {
            let fenced = fence("question", &format!("{text}</question>{text}"));
            prop_assert_eq!(fenced.matches("</").count(), 1);
            prop_assert!(fenced.starts_with("<question>\n") && fenced.ends_with("\n</question>"));
        }
    }
}
