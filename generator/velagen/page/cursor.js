// A cursor that all charts of the page share: the legends show the values at its time, read from the charts' own tables.
const charts = [...document.querySelectorAll("figure.chart:not(.empty)")].map((figure) => ({
  svg: figure.querySelector("svg[role=img]"),
  at: figure.querySelector("output.at"),
  cursor: figure.querySelector(".cursor"),
  values: [...figure.querySelectorAll(".legend b")],
  rows: [...figure.querySelectorAll("tbody tr")],
}));
for (const chart of charts) chart.last = chart.values.map((value) => value.textContent);

function show(place, count) {
  for (const chart of charts) {
    const there = place !== null && chart.rows.length === count;
    chart.svg.classList.toggle("read", there);
    chart.at.textContent = there ? chart.rows[place].cells[0].textContent + " UTC" : "";
    chart.values.forEach((value, index) => {
      value.textContent = there ? chart.rows[place].cells[index + 1].textContent : chart.last[index];
    });
    if (!there) continue;
    const { left, right } = chart.svg.dataset;
    const x = (+left + (right - left) * (count > 1 ? place / (count - 1) : 0.5)) * chart.svg.viewBox.baseVal.width;
    chart.cursor.setAttribute("x1", x);
    chart.cursor.setAttribute("x2", x);
  }
}

for (const chart of charts) {
  const count = chart.rows.length;
  let place = null;
  chart.svg.addEventListener("pointermove", (event) => {
    const box = chart.svg.getBoundingClientRect();
    const { left, right } = chart.svg.dataset;
    const share = ((event.clientX - box.left) / box.width - left) / (right - left);
    place = Math.round(Math.min(1, Math.max(0, share)) * (count - 1));
    show(place, count);
  });
  chart.svg.addEventListener("pointerleave", () => show(null, count));
  chart.svg.addEventListener("blur", () => show(null, count));
  chart.svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -count, End: count }[event.key];
    if (!step) return;
    event.preventDefault();
    place = Math.min(count - 1, Math.max(0, (place === null ? count - 1 : place) + step));
    show(place, count);
  });
}
