// GeoJSON as what there is to draw.

const DEPTHS = { Point: 0, MultiPoint: 1, LineString: 1, MultiLineString: 2, Polygon: 2, MultiPolygon: 3 }

/** A geometry's parts, each {kind: "point", "line" or "area", lines: lists of positions}; none of what is empty. */
export const partsOf = ({ type, coordinates, geometries }) => {
  if (type === "GeometryCollection") return geometries.flatMap(partsOf)
  const kind = type.endsWith("Polygon") ? "area" : type.endsWith("Point") ? "point" : "line"
  return polygons(DEPTHS[type], coordinates)
    .map(lines => ({ kind, lines: lines.map(line => line.filter(position => position.length)).filter(line => line.length) }))
    .filter(({ lines }) => lines.length)
}

/** All types as one: a list of lists of lines, of positions. */
const polygons = (depth, coordinates) => {
  if (depth === 3) return coordinates
  return depth === 2 ? [coordinates] : depth === 1 ? [[coordinates]] : [[[coordinates]]]
}

/** Its {parts}, and of how many {points} they are. */
export const measured = geometry => {
  const parts = partsOf(geometry)
  return { parts, points: parts.reduce((sum, { lines }) => sum + lines.flat().length, 0) }
}

/** [west, south, east, north] of at least one part. */
export const extentOf = parts => {
  const extent = [Infinity, Infinity, -Infinity, -Infinity]
  for (const { lines } of parts) {
    for (const [x, y] of lines.flat()) {
      extent[0] = Math.min(extent[0], x)
      extent[1] = Math.min(extent[1], y)
      extent[2] = Math.max(extent[2], x)
      extent[3] = Math.max(extent[3], y)
    }
  }
  return extent
}
