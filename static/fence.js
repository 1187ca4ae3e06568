// The fence of the address line, and how one is drawn.

const METERS = 111_195 // in a degree of a great circle, on a sphere: near enough to look at
const CORNERS = 64

/** What `bbox=west,south,east,north` or `near=longitude,latitude,meters` says, as subscribe takes it; {} for neither. */
export const fenceOf = address => {
  const fence = {}
  if (address.get("bbox")) fence.bbox = numbers(address.get("bbox"))
  if (address.get("near")) {
    const [longitude, latitude, meters] = numbers(address.get("near"))
    fence.near = { point: [longitude, latitude], meters }
  }
  return fence
}

/** Its outlines, as GeoJSON; none of one that the hub is going to refuse. */
export const shapesOf = ({ bbox, near }) => {
  const rings = []
  if (bbox?.length === 4 && bbox.every(Number.isFinite)) rings.push(...boxes(bbox))
  if (near && [...near.point, near.meters].every(Number.isFinite)) rings.push(circle(near))
  return rings.map(ring => ({ type: "Polygon", coordinates: [ring] }))
}

/** What is no number becomes null on the wire, and the hub says what it should be. */
const numbers = text => text.split(",").map(each => (each.trim() ? Number(each) : Number.NaN))

/** One whose west is greater than its east goes over the antimeridian: two. */
const boxes = ([west, south, east, north]) => {
  const box = (from, to) => [[from, south], [to, south], [to, north], [from, north], [from, south]]
  return west > east ? [box(west, 180), box(-180, east)] : [box(west, east)]
}

/** The destinations at one distance in all directions, on a sphere. */
const circle = ({ point: [longitude, latitude], meters }) => {
  const radians = Math.PI / 180
  const [arc, phi] = [(meters / METERS) * radians, latitude * radians]
  return Array.from({ length: CORNERS + 1 }, (_, corner) => {
    const bearing = (corner / CORNERS) * 2 * Math.PI
    const sine = Math.sin(phi) * Math.cos(arc) + Math.cos(phi) * Math.sin(arc) * Math.cos(bearing)
    const across = Math.sin(bearing) * Math.sin(arc) * Math.cos(phi)
    return [longitude + Math.atan2(across, Math.cos(arc) - Math.sin(phi) * sine) / radians, Math.asin(sine) / radians]
  })
}
