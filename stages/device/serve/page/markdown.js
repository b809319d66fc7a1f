// Markdown as models write it: paragraphs, headings, lists, tables, code, emphasis. Built from text nodes alone; links and
// pictures stay text, so that an answer can neither run anything nor ask another machine for anything.

const FENCE = /^\s*```/;
const ITEM = /^\s*(?:([-*+])|(\d{1,9})[.)])\s+(.*)$/;
const HEADING = /^\s*#{1,6}\s+(.*?)\s*#*$/;
const ROW = /^\s*\|.*\|\s*$/;
const RULE = /^\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$/;
const INLINE = /(`+)(.+?)\1(?!`)|(\*\*|__)(?=\S)(.+?)\3|\*(?=[^\s*])([^*]+?)\*/g;

// Renders into an element, again and again as its text grows: blocks that stay the same keep their nodes.
export class Rendered {
  constructor(element) {
    this.element = element;
    this.blocks = [];
  }

  set(text) {
    const blocks = split(text);
    let same = 0;
    while (same < blocks.length && this.blocks[same] === blocks[same]) same++;
    while (this.element.childNodes.length > same) this.element.lastChild.remove();
    this.element.append(...blocks.slice(same).map(build));
    this.blocks = blocks;
  }
}

// Blocks of lines: fences whole, all else apart where a line is empty or the kind of line changes.
function split(text) {
  const blocks = [];
  let block = [];
  let kind = "";
  const end = () => {
    if (block.length) blocks.push(block.join("\n"));
    block = [];
  };
  for (const line of text.split("\n")) {
    if (kind === "code") {
      block.push(line);
      if (FENCE.test(line)) {
        end();
        kind = "";
      }
      continue;
    }
    const next = kindOf(line, kind);
    if (next !== kind || next === "heading") end();
    kind = next;
    if (kind) block.push(line);
  }
  end();
  return blocks;
}

function kindOf(line, before) {
  if (FENCE.test(line)) return "code";
  if (!line.trim()) return "";
  if (HEADING.test(line)) return "heading";
  if (ROW.test(line)) return "table";
  const item = ITEM.exec(line);
  if (item) return item[1] ? "bullets" : "numbers";
  return before === "bullets" || before === "numbers" ? before : "text";
}

function build(block) {
  const lines = block.split("\n");
  if (FENCE.test(lines[0])) {
    const inner = lines.slice(1, FENCE.test(lines.at(-1)) && lines.length > 1 ? -1 : undefined);
    return make("pre", make("code", inner.join("\n")));
  }
  const heading = HEADING.exec(lines[0]);
  if (heading) return make("p", make("strong", ...inline(heading[1])));
  if (lines.length > 1 && ROW.test(lines[0]) && RULE.test(lines[1])) return table(lines);
  if (ITEM.test(lines[0])) return list(lines);
  return make("p", ...inline(block));
}

function list(lines) {
  const items = [];
  for (const line of lines) {
    const item = ITEM.exec(line);
    if (item) items.push(item[3]);
    else items[items.length - 1] += `\n${line.trim()}`;
  }
  const first = ITEM.exec(lines[0]);
  const made = make(first[1] ? "ul" : "ol", ...items.map((item) => make("li", ...inline(item))));
  if (first[2]) made.start = Number(first[2]);
  return made;
}

function table(lines) {
  const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => inline(cell.trim()));
  const row = (line, kind) => make("tr", ...cells(line).map((cell) => make(kind, ...cell)));
  const head = make("thead", row(lines[0], "th"));
  return make("div", make("table", head, make("tbody", ...lines.slice(2).map((line) => row(line, "td")))));
}

function inline(text) {
  const nodes = [];
  let at = 0;
  for (const found of text.matchAll(INLINE)) {
    nodes.push(text.slice(at, found.index));
    if (found[2] !== undefined) nodes.push(make("code", found[2]));
    else if (found[4] !== undefined) nodes.push(make("strong", ...inline(found[4])));
    else nodes.push(make("em", ...inline(found[5])));
    at = found.index + found[0].length;
  }
  return [...nodes, text.slice(at)].filter((node) => node !== "");
}

function make(name, ...children) {
  const element = document.createElement(name);
  element.append(...children);
  return element;
}
