// Players, one at a time, and the blind test. Without this script every clip still has the browser's own controls.
(() => {
  "use strict";

  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  const player = (audio, label, ...content) => {
    const button = make("button", { type: "button", className: "play" }, ...content);
    button.setAttribute("aria-label", `Play ${label}`);
    button.addEventListener("click", () => (audio.paused ? audio.play() : audio.pause()));
    audio.controls = false;
    audio.addEventListener("play", () => button.classList.add("playing"));
    for (const end of ["pause", "ended"])
      audio.addEventListener(end, () => {
        button.classList.remove("playing");
        audio.currentTime = 0;
        button.style.setProperty("--progress", 0);
      });
    audio.addEventListener("timeupdate", () => button.style.setProperty("--progress", audio.currentTime / audio.duration || 0));
    return button;
  };

  document.addEventListener(
    "play",
    ({ target }) => document.querySelectorAll("audio").forEach((other) => other !== target && other.pause()),
    true, // play does not bubble
  );
  const clips = [...document.querySelectorAll("figure.clip")];
  for (const clip of clips) clip.append(player(clip.querySelector("audio"), clip.dataset.label, clip.querySelector("img")));

  // The blind test: pairs of arms at the same target, prompt and seed.
  const section = document.getElementById("blind");
  const stage = document.getElementById("blind-stage");
  const result = document.getElementById("blind-result");
  const key = `timbre-ray blind test: ${document.title}, ${section.dataset.clips}`; // other clips, other choices
  const read = () => {
    try {
      return JSON.parse(localStorage.getItem(key)) || [];
    } catch {
      return []; // a browser that keeps nothing for local files
    }
  };
  let votes = read();
  const keep = () => {
    try {
      localStorage.setItem(key, JSON.stringify(votes));
    } catch {
      // the choices last as long as the page
    }
  };

  const pairs = [];
  const groups = {};
  for (const clip of clips.filter(({ dataset }) => "arm" in dataset)) {
    const { target, prompt, seed } = clip.dataset;
    (groups[[target, prompt, seed].join("\n")] ||= []).push(clip);
  }
  for (const group of Object.values(groups))
    group.forEach((one, i) => group.slice(i + 1).forEach((other) => pairs.push([one, other])));
  const name = (pair) => pair.map(({ dataset: d }) => [d.target, d.prompt, d.seed, d.column].join("\n")).sort().join("\n");

  const next = () => {
    const seen = new Map();
    for (const vote of votes) seen.set(vote.pair, (seen.get(vote.pair) || 0) + 1);
    const least = Math.min(...pairs.map((pair) => seen.get(name(pair)) || 0));
    const open = pairs.filter((pair) => (seen.get(name(pair)) || 0) === least);
    const pair = open[Math.floor(Math.random() * open.length)];
    return Math.random() < 0.5 ? pair : [pair[1], pair[0]];
  };

  // What to measure both against: the partner's prompt asks for what the untouched model knew, the others for the recorded instrument.
  const reference = ({ target, kind, instrument }) => {
    const found = (column, of) =>
      clips.find(({ dataset: d }) => d.target === target && !("arm" in d) && d.column === column && d.kind === of);
    const [label, clip] =
      kind === "partner"
        ? ["the untouched model", found("untouched backbone", "partner")]
        : [kind === "duet" ? `the ${instrument} alone` : "the recording", found("a recording", "solo")];
    return clip ? [[label, clip]] : [];
  };

  const ask = () => {
    const pair = next();
    const { target, prompt, text } = pair[0].dataset;
    const heard = [...reference(pair[0].dataset), ["A", pair[0]], ["B", pair[1]]];
    const players = heard.flatMap(([label, clip]) => {
      const audio = make("audio", { src: clip.querySelector("audio").src });
      return [audio, player(audio, label, label)];
    });
    const choose = (text, winner) => {
      const button = make("button", { type: "button" }, text);
      button.addEventListener("click", () => {
        const [a, b] = pair.map((clip) => clip.dataset.column);
        votes.push({ pair: name(pair), target, prompt, seed: pair[0].dataset.seed, a, b, winner: [a, b, null][winner] });
        keep();
        show();
        ask();
        stage.querySelector("button").focus();
      });
      return button;
    };
    stage.replaceChildren(
      make("p", { className: "asked" }, text || prompt),
      make("div", { className: "heard" }, ...players),
      make("div", { className: "chosen" }, choose("A is better", 0), choose("no difference", 2), choose("B is better", 1)),
      make("p", { className: "aside" }, `${votes.length} choice${votes.length === 1 ? "" : "s"} so far.`),
    );
  };

  // Wilson's 95 % interval of a share; a choice of no difference counts half for each.
  const interval = (won, of) => {
    const z = 1.96;
    const middle = (won + (z * z) / 2) / (of + z * z);
    const half = (z / (of + z * z)) * Math.sqrt((won * (of - won)) / of + (z * z) / 4);
    return [middle - half, middle + half].map((share) => `${Math.round(100 * share)} %`);
  };

  const show = () => {
    const arms = [...new Set(clips.filter((clip) => "arm" in clip.dataset).map((clip) => clip.dataset.column))];
    const rows = arms.map((arm) => {
      const own = votes.filter((vote) => vote.a === arm || vote.b === arm);
      const won = own.reduce((sum, vote) => sum + (vote.winner === arm ? 1 : vote.winner === null ? 0.5 : 0), 0);
      return { arm, of: own.length, won, share: own.length ? won / own.length : -1 };
    });
    rows.sort((one, other) => other.share - one.share);
    const cells = ({ arm, of, won, share }) => [arm, of, won, of ? `${Math.round(100 * share)} %` : "–", of ? interval(won, of).join(" to ") : "–"];
    const line = (tag, texts) => make("tr", {}, ...texts.map((text, i) => make(i ? tag : "th", { scope: i ? "" : "row" }, String(text))));
    const head = make("thead", {}, line("th", ["", "heard", "preferred", "share", "95 % interval"]));
    result.replaceChildren(make("table", {}, head, make("tbody", {}, ...rows.map((row) => line("td", cells(row))))));
  };

  const actions = {
    show: (button) => {
      result.hidden = !result.hidden;
      button.setAttribute("aria-expanded", String(!result.hidden));
      button.textContent = result.hidden ? "Show the result" : "Hide the result";
    },
    export: () => {
      const file = new Blob([JSON.stringify({ report: document.title, votes }, null, 1)], { type: "application/json" });
      const link = make("a", { href: URL.createObjectURL(file), download: "blind-test.json" });
      link.click();
      URL.revokeObjectURL(link.href);
    },
    clear: () => {
      votes = [];
      keep();
      show();
      ask();
    },
  };

  if (pairs.length) {
    section.hidden = false;
    document.querySelector('nav a[href="#blind"]').hidden = false;
    section.querySelectorAll("[data-action]").forEach((button) => button.addEventListener("click", () => actions[button.dataset.action](button)));
    show();
    ask();
  }
})();
