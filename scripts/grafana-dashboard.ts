import { PromQueryFormat, DataqueryBuilder } from '@grafana/grafana-foundation-sdk/prometheus'
import {
  AnnotationQueryBuilder,
  type Dashboard,
  DashboardBuilder,
  DashboardCursorSync,
  DatasourceVariableBuilder,
  MappingType,
  QueryVariableBuilder,
  RowBuilder,
  TextBoxVariableBuilder,
  type ValueMapping,
  VariableRefresh,
  VariableSort,
} from '@grafana/grafana-foundation-sdk/dashboard'
import {
  AxisPlacement,
  GraphDrawStyle,
  LegendDisplayMode,
  LegendPlacement,
  TooltipDisplayMode,
  VisibilityMode,
  VizLegendOptionsBuilder,
  VizTooltipOptionsBuilder,
} from '@grafana/grafana-foundation-sdk/common'
import * as heatmap from '@grafana/grafana-foundation-sdk/heatmap'
import * as stat from '@grafana/grafana-foundation-sdk/stat'
import * as statetimeline from '@grafana/grafana-foundation-sdk/statetimeline'
import * as table from '@grafana/grafana-foundation-sdk/table'
import * as timeseries from '@grafana/grafana-foundation-sdk/timeseries'

import { INCIDENT_GAUGES, MESH_INCIDENT_GAUGES, MESH_METRICS, MONITOR_GAUGES } from '../src/core/metric-names.js'
import type { Verdict } from '../src/core/score.js'

const { accumulator, severity, sev1, sev2, started, temperature } = INCIDENT_GAUGES
const { anomalyCount, mae, mape, requestsPerSecond, score, verdict, y, yhat, yMax, yMin } = MONITOR_GAUGES
const { edges, refused, shardOrdinal, shards } = MESH_METRICS
const { incidentTemperature, open, warmEdges } = MESH_INCIDENT_GAUGES

const DATASOURCE = { type: 'prometheus', uid: '${datasource}' }

const RED = 'red'
const ORANGE = 'orange'
const GREEN = 'green'
const BLUE = 'blue'
const GREY = '#808080'
const FAINT = 'rgba(115, 191, 105, 0.4)'

/** As often as Istio's Prometheus scrapes. What is shorter cannot be seen. */
const SCRAPE_SECONDS = 15

// Queries. Replicas show the same: `max by` makes one series of them. ---------------------------------------------------------

const ALL_PAIRS = 'source, destination'
const THE_PAIR = 'source="$source",destination="$destination"'
const THE_QUANTILE = `${THE_PAIR},quantile="$quantile"`

const ofPair = (metric: { readonly name: string }): string => `max by (${ALL_PAIRS}) (${metric.name}{${THE_PAIR}})`
const ofQuantile = (metric: { readonly name: string }): string =>
  `max by (${ALL_PAIRS}, quantile) (${metric.name}{${THE_QUANTILE}})`

/** The sample, where it is anomalous. The count is of the pair, the band says which of its quantiles it was. */
const ANOMALIES = `${ofQuantile(y)}
and on (${ALL_PAIRS}) (${ofPair(anomalyCount)} > 0)
and (${ofQuantile(y)} > ${ofQuantile(yMax)} or ${ofQuantile(y)} < ${ofQuantile(yMin)})`

/** Worst last: of replicas that do not agree, the verdict that says most holds, as in the incident daemon. */
const VERDICTS: readonly { readonly verdict: Verdict; readonly color: string }[] = [
  { verdict: 'no_data', color: GREY },
  { verdict: 'warming', color: 'purple' },
  { verdict: 'low_traffic', color: BLUE },
  { verdict: 'ok', color: GREEN },
  { verdict: 'anomalous', color: RED },
]
const VERDICT = `max by (${ALL_PAIRS}) (
${VERDICTS.map((state, i) => `  (${verdict.name}{verdict="${state.verdict}"} == 1) * ${i + 1}`).join('\n  or\n')}
)`

const SEV_1 = `max(${sev1.name}) == 1`
const SEV_2 = `max(${sev2.name}) == 1 unless ${SEV_1}`
const SEVERITY = `min(${severity.name} > 0) or max(${severity.name})`

/** The beginning of the open incident, as a label: so each incident is a series of its own. */
const INCIDENT = `count_values("started", max(${started.name}))`
const eachIncident = (value: string): string =>
  `(${INCIDENT} * on () group_left () ${value})[$__range:${SCRAPE_SECONDS}s]`
const INCIDENT_BEGAN_MS = `max_over_time(${eachIncident(`(max(${started.name}) * 1000)`)})`
const INCIDENT_WORST = `min_over_time(${eachIncident(`min(${severity.name} > 0)`)})`
const INCIDENT_SECONDS = `count_over_time(${INCIDENT}[$__range:${SCRAPE_SECONDS}s]) * ${SCRAPE_SECONDS}`

/** More lines than these on one chart cannot be told apart, and a mesh has thousands. */
const MOST_LINES = 20
const hottest = (expr: string): string => `topk(${MOST_LINES}, ${expr})`

/** Of a mesh. Replicas of one shard watch the same edges: each shard counts once. */
const perShard = (metric: { readonly name: string }, label: string): string =>
  `sum by (${label}) (max by (${label}, shard) (
  ${metric.name} * on (job, instance) group_left (shard) count_values by (job, instance) ("shard", ${shardOrdinal.name})
))`
const EDGE_SCORE = `max by (${ALL_PAIRS}) (${score.name})`
const HOTTEST_EDGES = hottest(EDGE_SCORE)
const ofHottestEdges = (metric: { readonly name: string }): string =>
  `max by (${ALL_PAIRS}) (${metric.name}) and on (${ALL_PAIRS}) ${HOTTEST_EDGES}`

const BUCKETS =
  'sum by (le) (increase(istio_request_duration_milliseconds_bucket{reporter="source",source_app="$source",destination_app="$destination"}[$__rate_interval]))'

// Parts -----------------------------------------------------------------------------------------------------------------------

const query = (refId: string, expr: string, legend: string): DataqueryBuilder =>
  new DataqueryBuilder().refId(refId).expr(expr).legendFormat(legend).range().interval(`${SCRAPE_SECONDS}s`)
const column = (refId: string, expr: string): DataqueryBuilder =>
  new DataqueryBuilder().refId(refId).expr(expr).instant().format(PromQueryFormat.Table)

const valueTexts = (
  texts: Readonly<Record<string, { readonly text: string; readonly color: string }>>,
): ValueMapping[] => [
  {
    type: MappingType.ValueToText,
    options: Object.fromEntries(Object.entries(texts).map(([value, result], index) => [value, { ...result, index }])),
  },
]
const SEVERITY_TEXTS = valueTexts({
  0: { text: 'no incident', color: GREEN },
  1: { text: 'Sev 1', color: RED },
  2: { text: 'Sev 2', color: ORANGE },
})

const field = (id: string, value: unknown): { id: string; value: unknown } => ({ id, value })
const coloured = (color: string): { id: string; value: unknown } => field('color', { mode: 'fixed', fixedColor: color })
const DASHED = field('custom.lineStyle', { fill: 'dash', dash: [10, 10] })
const THIN = field('custom.lineWidth', 1)
const UNFILLED = field('custom.fillOpacity', 0)

function lines(title: string, description: string): timeseries.PanelBuilder {
  return new timeseries.PanelBuilder()
    .title(title)
    .description(description)
    .datasource(DATASOURCE)
    .min(0)
    .lineWidth(2)
    .showPoints(VisibilityMode.Never)
    .tooltip(new VizTooltipOptionsBuilder().mode(TooltipDisplayMode.Multi))
    .legend(
      new VizLegendOptionsBuilder()
        .displayMode(LegendDisplayMode.List)
        .placement(LegendPlacement.Bottom)
        .showLegend(true),
    )
}

function annotation(name: string, color: string, expr: string): AnnotationQueryBuilder {
  return new AnnotationQueryBuilder()
    .name(name)
    .titleFormat(name)
    .datasource(DATASOURCE)
    .enable(true)
    .iconColor(color)
    .expr(expr)
    .step(`${SCRAPE_SECONDS}s`)
}

function labelVariable(name: string, expr: string): QueryVariableBuilder {
  return new QueryVariableBuilder(name)
    .datasource(DATASOURCE)
    .query({ query: `label_values(${expr}, ${name})`, refId: name })
    .definition(`label_values(${expr}, ${name})`)
    .refresh(VariableRefresh.OnTimeRangeChanged)
    .sort(VariableSort.AlphabeticalAsc)
}

// Panels ----------------------------------------------------------------------------------------------------------------------

const severityPanel = new stat.PanelBuilder()
  .title('Severity')
  .description('Of the open incident: Sev 1 with two or more hot pairs, Sev 2 with one.')
  .datasource(DATASOURCE)
  .mappings(SEVERITY_TEXTS)
  .height(8)
  .span(4)
  .withTarget(column('A', SEVERITY).format(PromQueryFormat.TimeSeries))

const temperaturePanel = lines(
  'Temperature',
  'Sum of the accumulators. An incident opens above the incident threshold and closes at or below the clear threshold. The daemon does not export the two: they are variables of this dashboard.',
)
  .withTarget(query('A', `max(${temperature.name})`, 'temperature'))
  .withTarget(query('B', 'vector($incident_threshold)', 'incident threshold'))
  .withTarget(query('C', 'vector($clear_threshold)', 'clear threshold'))
  .overrideByName('temperature', [coloured(ORANGE), field('custom.fillOpacity', 15)])
  .overrideByName('incident threshold', [coloured(RED), DASHED, THIN])
  .overrideByName('clear threshold', [coloured(GREEN), DASHED, THIN])
  .height(8)
  .span(10)

const accumulatorsPanel = lines(
  'Accumulators',
  `Rises by the anomaly count of a poll, falls on ok polls, stays in silence. The ${MOST_LINES} hottest at each time.`,
)
  .withTarget(query('A', hottest(`max by (${ALL_PAIRS}) (${accumulator.name})`), '{{source}} -> {{destination}}'))
  .height(8)
  .span(10)

const verdictsPanel = new statetimeline.PanelBuilder()
  .title('Verdicts')
  .description(`What the last poll said of each pair; of more than ${MOST_LINES} those of which it said the worst.`)
  .datasource(DATASOURCE)
  .mappings(valueTexts(Object.fromEntries(VERDICTS.map(({ verdict: text, color }, i) => [i + 1, { text, color }]))))
  .mergeValues(true)
  .showValue(VisibilityMode.Auto)
  .withTarget(query('A', hottest(VERDICT), '{{source}} -> {{destination}}'))
  .height(8)
  .span(14)

const incidentsPanel = new table.PanelBuilder()
  .title('Incidents')
  .description(`Those open in the time range, seen every ${SCRAPE_SECONDS} s.`)
  .datasource(DATASOURCE)
  .withTarget(column('A', INCIDENT_BEGAN_MS))
  .withTarget(column('B', INCIDENT_WORST))
  .withTarget(column('C', INCIDENT_SECONDS))
  .withTransformation({ id: 'merge', options: {} })
  .withTransformation({
    id: 'organize',
    options: {
      excludeByName: { Time: true, started: true },
      indexByName: { 'Value #A': 0, 'Value #B': 1, 'Value #C': 2 },
      renameByName: { 'Value #A': 'Began', 'Value #B': 'Worst severity', 'Value #C': 'Open for' },
    },
  })
  .withTransformation({ id: 'sortBy', options: { fields: {}, sort: [{ field: 'Began', desc: true }] } })
  .overrideByName('Began', [field('unit', 'dateTimeAsIso')])
  .overrideByName('Worst severity', [
    field('mappings', SEVERITY_TEXTS),
    field('custom.cellOptions', { type: 'color-text' }),
  ])
  .overrideByName('Open for', [field('unit', 's')])
  .height(8)
  .span(10)

/** Sets the variables to the edge in the row, and so its chart. */
const TO_EDGE = {
  title: 'The chart of ${__data.fields.source} -> ${__data.fields.destination}',
  url: [
    '/d/meshfever?${datasource:queryparam}',
    'var-source=${__data.fields.source:percentencode}',
    'var-destination=${__data.fields.destination:percentencode}',
    '${incident_threshold:queryparam}',
    '${clear_threshold:queryparam}',
    '${__url_time_range}',
  ].join('&'),
}

const hottestEdgesPanel = new table.PanelBuilder()
  .title('Hottest edges')
  .description(
    `The ${MOST_LINES} that are furthest out now: a score of 1 is the edge of the band. Of several quantiles the highest. The names lead to the edge's chart.`,
  )
  .datasource(DATASOURCE)
  .withTarget(column('A', HOTTEST_EDGES))
  .withTarget(column('B', ofHottestEdges(y)))
  .withTarget(column('C', ofHottestEdges(requestsPerSecond)))
  .withTarget(column('D', ofHottestEdges(accumulator)))
  .withTransformation({ id: 'merge', options: {} })
  .withTransformation({
    id: 'organize',
    options: {
      excludeByName: { Time: true },
      indexByName: { source: 0, destination: 1, 'Value #A': 2, 'Value #B': 3, 'Value #C': 4, 'Value #D': 5 },
      renameByName: {
        'Value #A': 'Score',
        'Value #B': 'Latency',
        'Value #C': 'Requests',
        'Value #D': 'Accumulator',
      },
    },
  })
  .withTransformation({ id: 'sortBy', options: { fields: {}, sort: [{ field: 'Score', desc: true }] } })
  .overrideByName('source', [field('links', [TO_EDGE])])
  .overrideByName('destination', [field('links', [TO_EDGE])])
  .overrideByName('Score', [field('decimals', 2)])
  .overrideByName('Latency', [field('unit', 'ms')])
  .overrideByName('Requests', [field('unit', 'reqps')])
  .height(10)
  .span(12)

const scoresPanel = lines(
  'Highest scores',
  `Of the ${MOST_LINES} edges that were furthest out at each time: 1 is the edge of the band.`,
)
  .withTarget(query('A', HOTTEST_EDGES, '{{source}} -> {{destination}}'))
  .height(10)
  .span(12)

const edgesPanel = lines('Edges by verdict', 'Watched by all shards, by the verdict of the last poll.')
  .withTarget(query('A', perShard(edges, 'state'), '{{state}}'))
  .overrideByName('anomalous', [coloured(RED)])
  .overrideByName('ok', [coloured(GREEN)])
  .overrideByName('no_data', [coloured(GREY)])
  .height(8)
  .span(8)

const componentsPanel = lines(
  'Components',
  `The temperature of each open incident's part of the mesh, how many incidents are open, and how many edges are warm.`,
)
  .withTarget(query('A', hottest(`max by (incident) (${incidentTemperature.name})`), '{{incident}}'))
  .withTarget(query('B', `max(${open.name})`, 'open incidents'))
  .withTarget(query('C', `max(${warmEdges.name})`, 'warm edges'))
  .overrideByName('open incidents', [coloured(RED), UNFILLED])
  .overrideByName('warm edges', [coloured(GREY), DASHED, THIN])
  .height(8)
  .span(8)

const shardsPanel = lines(
  'Shards and edges not watched',
  'How many shards are heard, into how many the mesh is divided, and why edges are not watched.',
)
  .withTarget(query('A', `count(count_values("shard", ${shardOrdinal.name}))`, 'shards heard'))
  .withTarget(query('B', `max(${shards.name})`, 'shards'))
  .withTarget(query('C', perShard(refused, 'reason'), 'refused: {{reason}}'))
  .overrideByName('shards heard', [coloured(BLUE)])
  .overrideByName('shards', [coloured(GREY), DASHED])
  .height(8)
  .span(8)

const latencyPanel = lines(
  'Latency',
  'Measured latency in the band that training calls normal. Dots are samples that were called anomalous.',
)
  .unit('ms')
  .withTarget(query('A', ofQuantile(yMin), 'y_min'))
  .withTarget(query('B', ofQuantile(yMax), 'y_max'))
  .withTarget(query('C', ofQuantile(yhat), 'yhat'))
  .withTarget(query('D', ofQuantile(y), 'y'))
  .withTarget(query('E', ANOMALIES, 'anomaly'))
  .overrideByName('y_min', [coloured(FAINT), THIN, UNFILLED])
  .overrideByName('y_max', [
    coloured(FAINT),
    THIN,
    field('custom.fillBelowTo', 'y_min'),
    field('custom.fillOpacity', 20),
  ])
  .overrideByName('yhat', [coloured(GREEN), THIN, DASHED])
  .overrideByName('y', [coloured(BLUE)])
  .overrideByName('anomaly', [
    coloured(RED),
    field('custom.drawStyle', GraphDrawStyle.Points),
    field('custom.showPoints', VisibilityMode.Always),
    field('custom.pointSize', 8),
  ])
  .height(10)
  .span(24)

const heatmapPanel = new heatmap.PanelBuilder()
  .title("Istio's duration histogram")
  .description("Requests by duration, as the caller's sidecar measured them.")
  .datasource(DATASOURCE)
  .calculate(false)
  .yAxis(new heatmap.YAxisConfigBuilder().unit('ms').axisPlacement(AxisPlacement.Left))
  .color(
    new heatmap.HeatmapColorOptionsBuilder()
      .mode(heatmap.HeatmapColorMode.Scheme)
      .scheme('Oranges')
      .fill('dark-orange')
      .scale(heatmap.HeatmapColorScale.Exponential)
      .exponent(0.5)
      .steps(64)
      .reverse(false),
  )
  .cellGap(1)
  .withTarget(query('A', BUCKETS, '{{le}}').format(PromQueryFormat.Heatmap))
  .height(8)
  .span(12)

const ratePanel = lines('Request rate', 'Requests per second in the query window.')
  .unit('reqps')
  .withTarget(query('A', ofPair(requestsPerSecond), 'requests'))
  .height(8)
  .span(12)

const maePanel = lines('MAE', 'Absolute error |y - yhat| of the last sample.')
  .unit('ms')
  .withTarget(query('A', ofQuantile(mae), 'mae'))
  .height(8)
  .span(12)

const mapePanel = lines('MAPE', 'Absolute percentage error |y - yhat| / |y| of the last sample; none when y is 0.')
  .unit('percentunit')
  .withTarget(query('A', ofQuantile(mape), 'mape'))
  .height(8)
  .span(12)

/** The dashboard, as Grafana's JSON model. */
/* eslint-disable @typescript-eslint/no-deprecated -- the successor needs Grafana 12 and its API; files, as sidecars provision them, are of this model. */
export function dashboard(): Dashboard {
  return (
    new DashboardBuilder('meshfever')
      .uid('meshfever')
      .description('The temperature of a service mesh: latency of pairs of services, anomalies and incidents.')
      .tags(['meshfever', 'istio'])
      .readonly()
      .time({ from: 'now-1h', to: 'now' })
      .refresh('15s')
      .tooltip(DashboardCursorSync.Crosshair)
      .annotation(annotation('Sev 1', RED, SEV_1))
      .annotation(annotation('Sev 2', ORANGE, SEV_2))
      .withVariable(new DatasourceVariableBuilder('datasource').label('Prometheus').type('prometheus'))
      .withVariable(labelVariable('source', verdict.name))
      .withVariable(labelVariable('destination', `${verdict.name}{source="$source"}`))
      .withVariable(labelVariable('quantile', `${yhat.name}{${THE_PAIR}}`))
      // As given to the incident daemon; these are its defaults.
      .withVariable(new TextBoxVariableBuilder('incident_threshold').label('Incident threshold').defaultValue('10'))
      .withVariable(new TextBoxVariableBuilder('clear_threshold').label('Clear threshold').defaultValue('5'))
      .withRow(new RowBuilder('Incidents'))
      .withPanel(severityPanel)
      .withPanel(temperaturePanel)
      .withPanel(accumulatorsPanel)
      .withPanel(verdictsPanel)
      .withPanel(incidentsPanel)
      .withRow(new RowBuilder('Mesh'))
      .withPanel(hottestEdgesPanel)
      .withPanel(scoresPanel)
      .withPanel(edgesPanel)
      .withPanel(componentsPanel)
      .withPanel(shardsPanel)
      .withRow(new RowBuilder('$source -> $destination'))
      .withPanel(latencyPanel)
      .withPanel(ratePanel)
      .withPanel(heatmapPanel)
      .withPanel(maePanel)
      .withPanel(mapePanel)
      .build()
  )
}
