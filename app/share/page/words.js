// An answer in words, as app/inference/wording.py and app/evaluation/decision.py give it: the tests
// compare both.

const SURELY = 0.99;
const PROBABLY = 0.66;
const POSSIBLE = 0.1;
const TOP = 5; // classes that are shown, however many there are

// Returns a class's name, "unsure" or "neither".
export function decide(classes, probabilities, novelty, thresholds) {
  if (novelty > thresholds.novelty) return "neither";
  const best = order(probabilities)[0];
  return probabilities[best] < thresholds.confidence ? "unsure" : classes[best];
}

export function inWords(label, classes, probabilities) {
  if (label === "neither") {
    if (classes.length === 2) return `neither ${classes[0]} nor ${classes[1]}`;
    return `neither: none of the ${classes.length} classes`;
  }
  const [best, next] = order(probabilities);
  const [first, second] = [classes[best], classes[next]];
  if (label === "unsure") return `unsure: perhaps ${first}, or ${second}`;
  if (probabilities[best] >= SURELY) return `surely ${first}`;
  if (probabilities[best] >= PROBABLY && probabilities[next] >= POSSIBLE) {
    return `probably ${first}; could be ${second}`;
  }
  if (probabilities[best] >= PROBABLY) return `probably ${first}`;
  return `perhaps ${first}, or ${second}`;
}

// The numbers of the classes to show: all in their order, or of many the likeliest alone.
export function shown(probabilities) {
  if (probabilities.length <= TOP) return [...probabilities.keys()];
  return order(probabilities).slice(0, TOP);
}

// The numbers of the classes, the likeliest first; of equal ones the earlier.
function order(probabilities) {
  return [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a] || a - b);
}
