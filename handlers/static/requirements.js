// The page at /requirements: who was hired in a year, by department, quarter and job.

/* global Chart */

import { ask } from "/page/token.js";

const QUARTERS = ["Q1", "Q2", "Q3", "Q4"];
const COLOURS = ["#4e79a7", "#59a14f", "#f28e2b", "#b07aa1"];
const ABOVE = "#4e79a7";
const BELOW = "#a9b8c9";
const MEAN = "#c33";
const JOBS_SHOWN = 12;

const $ = (id) => document.getElementById(id);
const number = (value) => value.toLocaleString("en", { maximumFractionDigits: 1 });

let quarters = []; // {department, job, Q1 … Q4}
let departments = []; // {id, department, hired}
let chosen = null; // the department shown alone
const charts = {};

async function items(path) {
  const answer = await ask(path, { headers: { Accept: "application/json" } });
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.detail);
  return body.items;
}

const hired = (row) => QUARTERS.reduce((sum, quarter) => sum + row[quarter], 0);
const mean = () => departments.reduce((sum, each) => sum + each.hired, 0) / departments.length;

// What is drawn -------------------------------------------------------------------------------------------------------

// A line across the bars where the mean of all departments is.
const meanLine = {
  id: "mean",
  afterDatasetsDraw(chart) {
    if (!departments.length) return;
    const { ctx, chartArea, scales } = chart;
    const x = scales.x.getPixelForValue(mean());
    ctx.save();
    ctx.strokeStyle = ctx.fillStyle = MEAN;
    ctx.setLineDash([6, 4]);
    ctx.beginPath();
    ctx.moveTo(x, chartArea.top);
    ctx.lineTo(x, chartArea.bottom);
    ctx.stroke();
    ctx.fillText(`mean ${number(mean())}`, x + 6, chartArea.bottom - 6);
    ctx.restore();
  },
};

function draw(id, type, data, options = {}, plugins = []) {
  if (charts[id]) {
    charts[id].data = data;
    charts[id].update();
    return;
  }
  charts[id] = new Chart($(id), {
    type,
    data,
    plugins,
    options: { responsive: true, maintainAspectRatio: false, animation: false, ...options },
  });
}

function drawDepartments() {
  const colour = (each) => (chosen && each.department !== chosen ? "#8884" : each.hired > mean() ? ABOVE : BELOW);
  draw(
    "departments",
    "bar",
    {
      labels: departments.map((each) => each.department),
      datasets: [{ label: "Hired", data: departments.map((each) => each.hired), backgroundColor: departments.map(colour) }],
    },
    {
      indexAxis: "y",
      plugins: { legend: { display: false } },
      onClick: (_, [bar]) => bar && choose(departments[bar.index].department),
    },
    [meanLine],
  );
}

function drawQuarters(rows) {
  const sums = QUARTERS.map((quarter) => rows.reduce((sum, row) => sum + row[quarter], 0));
  draw("quarters", "bar", { labels: QUARTERS, datasets: [{ label: "Hired", data: sums, backgroundColor: COLOURS }] }, {
    plugins: { legend: { display: false } },
  });
}

function drawJobs(rows) {
  const jobs = new Map();
  for (const row of rows) {
    const sums = jobs.get(row.job) ?? { job: row.job, Q1: 0, Q2: 0, Q3: 0, Q4: 0 };
    for (const quarter of QUARTERS) sums[quarter] += row[quarter];
    jobs.set(row.job, sums);
  }
  const most = [...jobs.values()].sort((one, other) => hired(other) - hired(one)).slice(0, JOBS_SHOWN);
  draw(
    "jobs",
    "bar",
    {
      labels: most.map((each) => each.job),
      datasets: QUARTERS.map((quarter, place) => ({
        label: quarter, data: most.map((each) => each[quarter]), backgroundColor: COLOURS[place],
      })),
    },
    { indexAxis: "y", scales: { x: { stacked: true }, y: { stacked: true, ticks: { autoSkip: false } } } },
  );
}

function summarise() {
  const all = departments.reduce((sum, each) => sum + each.hired, 0);
  const above = departments.filter((each) => each.hired > mean()).length;
  $("summary").textContent = all
    ? `${number(all)} hired in ${$("year").value}, ${number(mean())} a department; ${above} of ${departments.length} departments hired more.`
    : `Nobody was hired in ${$("year").value || "any year"}.`;
}

function show() {
  const rows = chosen ? quarters.filter((row) => row.department === chosen) : quarters;
  $("by-quarter").textContent = chosen ? `By quarter: ${chosen}` : "By quarter";
  drawDepartments();
  drawQuarters(rows);
  drawJobs(rows);
}

function choose(department) {
  chosen = chosen === department ? null : department;
  show();
}

// The year ------------------------------------------------------------------------------------------------------------

async function load(year) {
  [quarters, departments] = await Promise.all([
    items(`/requirements/quarter?year=${year}`),
    items(`/requirements/departments?year=${year}`),
  ]);
  chosen = null;
  for (const report of ["quarter", "media"]) $(`${report}-csv`).href = `/requirements/${report}?year=${year}`;
  summarise();
  show();
}

async function open() {
  const years = (await items("/requirements/years")).map((each) => String(each.year));
  const asked = new URLSearchParams(location.search).get("year");
  if (asked && !years.includes(asked)) years.unshift(asked);
  for (const year of years) $("year").append(new Option(year, year));
  if (asked) $("year").value = asked;
  $("year").onchange = () => {
    history.replaceState(null, "", `?year=${$("year").value}`);
    load($("year").value).catch(tell);
  };
  if (years.length) await load($("year").value);
  else summarise();
}

const tell = (error) => ($("summary").textContent = error.message);

open().catch(tell);
