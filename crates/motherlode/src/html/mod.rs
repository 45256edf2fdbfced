//! A page as a tree of elements: every text and attribute is escaped on its way in, so passages cannot become markup.
//!
//! The report and the inspector are written with it, and share the colours and letters of [`THEME`].

use std::fmt::{Display, Write};

/// The style sheet that all pages begin with: colours for light and dark, letters, links, tables.
pub(crate) const THEME: &str = include_str!("theme.css");

/// Finished markup. Only elements and constants of this program become one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Html(String);

impl Html {
    /// The markup as it stands in the file.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Text, escaped.
    pub(crate) fn text(text: impl Display) -> Self {
        Self(escape(&text.to_string()))
    }

    /// The theme and a style sheet that is part of this program.
    pub(crate) fn style(sheet: &'static str) -> Self {
        Self(format!("<style>\n{THEME}{sheet}</style>"))
    }
}

/// An element under construction.
#[derive(Debug, Clone)]
pub(crate) struct Element {
    name: &'static str,
    attributes: String,
    content: String,
}

/// An element without attributes and content.
pub(crate) fn element(name: &'static str) -> Element {
    Element { name, attributes: String::new(), content: String::new() }
}

impl Element {
    /// Adds an attribute; the value is escaped.
    pub(crate) fn attribute(mut self, name: &'static str, value: impl Display) -> Self {
        self.attributes += &format!(" {name}=\"{}\"", escape(&value.to_string()));
        self
    }

    /// Sets the class.
    pub(crate) fn class(self, class: impl Display) -> Self {
        self.attribute("class", class)
    }

    /// Marks the content as another's words in a language: its fonts, and its direction by its first strong letter,
    /// kept apart from the direction of what stands around it.
    pub(crate) fn foreign(self, language: impl Display) -> Self {
        self.attribute("lang", language).attribute("dir", "auto")
    }

    /// Adds an attribute without a value, such as `checked`, if it holds.
    pub(crate) fn flag(mut self, name: &'static str, holds: bool) -> Self {
        if holds {
            self.attributes += &format!(" {name}");
        }
        self
    }

    /// Appends text, escaped.
    pub(crate) fn text(self, text: impl Display) -> Self {
        self.child(Html::text(text))
    }

    /// Appends markup.
    pub(crate) fn child(mut self, child: impl Into<Html>) -> Self {
        self.content += child.into().as_str();
        self
    }

    /// Appends several pieces of markup.
    pub(crate) fn children<T: Into<Html>>(self, children: impl IntoIterator<Item = T>) -> Self {
        children.into_iter().fold(self, Self::child)
    }
}

impl From<Element> for Html {
    fn from(element: Element) -> Self {
        let Element { name, attributes, content } = element;
        let mut markup = format!("<{name}{attributes}>");
        if !matches!(name, "meta" | "br" | "link" | "input") {
            write!(markup, "{content}</{name}>").expect("a string takes everything");
        }
        Self(markup)
    }
}

/// Text as it must stand in an element or a quoted attribute. Control characters, which HTML forbids, become U+FFFD.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\t' | '\n' => escaped.push(character),
            _ if character.is_control() => escaped.push('\u{fffd}'),
            _ => escaped.push(character),
        }
    }
    escaped
}

/// A number with commas between thousands.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A share as per cent, with one decimal.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// The beginning of a long text, so many graphemes of it, and whether that is all of it.
pub(crate) fn beginning(text: &str, graphemes: usize) -> (&str, bool) {
    use unicode_segmentation::UnicodeSegmentation;
    match text.grapheme_indices(true).nth(graphemes) {
        Some((end, _)) => (text[..end].trim_end(), false),
        None => (text, true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_and_attributes_stay_text() {
        let hostile = "</p><script>alert('1')</script>&amp;\u{0}\u{1b}";
        let html: Html = element("p").attribute("title", "\" onload=\"x").text(hostile).into();
        let expected = "<p title=\"&quot; onload=&quot;x\">&lt;/p&gt;&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;\
                        &amp;amp;\u{fffd}\u{fffd}</p>";
        assert_eq!(html.as_str(), expected);
    }

    #[test]
    fn elements_nest_and_some_have_no_end() {
        let cells = ["a", "b"].map(|text| element("td").text(text));
        let html: Html = element("tr").child(element("br")).children(cells).into();
        assert_eq!(html.as_str(), "<tr><br><td>a</td><td>b</td></tr>");
    }

    #[test]
    fn long_texts_are_cut_between_graphemes() {
        assert_eq!(beginning("short", 5), ("short", true));
        assert_eq!(beginning(&"के".repeat(9), 8), ("के".repeat(8).as_str(), false));
    }

    #[test]
    fn another_language_has_its_direction() {
        let html: Html = element("q").foreign("ar").text("سؤال").into();
        assert_eq!(html.as_str(), "<q lang=\"ar\" dir=\"auto\">سؤال</q>");
    }

    proptest! {
        #[test]
        fn nothing_escapes(text in any::<String>()) {
            prop_assert!(!escape(&text).contains(['<', '>', '"', '\'']));
        }
    }
}
