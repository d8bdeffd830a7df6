// What the pages of `serve`, `share` and the studio say of answers, besides the words themselves.

const NAMED = 3; // of more photos the answers are counted

// Returns what is added to an answer that names no class.
export function detail(label) {
  if (label === "neither") {
    return "It is unlike the photos that were learned from. If it had to be one of them:";
  }
  return label === "unsure" ? "Nothing is likely enough for a clear answer." : "";
}

// As app.inference.wording.percentage: nothing is certain.
export function percentage(probability) {
  const rounded = (100 * probability).toFixed(1);
  if (rounded === "100.0") return "> 99.9 %";
  return rounded === "0.0" ? "< 0.1 %" : `${rounded} %`;
}

// Returns what is read out of some photos: cards with a `file` and a `verdict`.
export function summary(cards) {
  if (cards.length <= NAMED) {
    return cards.map((card) => `${card.file.name}: ${card.verdict}`).join(". ");
  }
  const counts = new Map();
  cards.forEach((card) => counts.set(card.verdict, (counts.get(card.verdict) ?? 0) + 1));
  const parts = [...counts].map(([text, count]) => `${count} times ${text}`);
  return `${cards.length} photos: ${parts.join(", ")}`;
}
