"""The words of a second, technical domain of the synthetic world, and the sentences they stand in.

It is made like the clinical one, with as many words of each kind, and shares none of them. The
grades are on the scale of a standard normal variable (-2: a toy, +2: an industrial plant); cues are
of price, size and speed.
"""

from dsgkd.data._vocabulary import _levels, _phrases, _weights

PLAIN_TERMS = _weights("""
    lever -0.4, pencil -1.6, kettle -0.8, magnet -1, bicycle 0.1, torch -1.3, compass -0.9,
    crane 1.7, lathe 1, stapler -1.5, toaster -0.9, locomotive 2, forklift 1.3, umbrella -1.4,
    printer 0, turbine 1.9, drill 0.2, pulley -0.5, marble -1.9, bulldozer 1.7, lantern -1.1,
    typewriter -0.1, tractor 1.4, whistle -1.8, keyboard -0.3, helicopter 2.1, hinge -1.4,
    sextant 0.3, excavator 1.8, corkscrew -1.5, generator 0.9, furnace 1.1, zipper -1.8,
    gearbox 0.6, tripod -0.4, conveyor 1, dynamo 0.4, scissors -1.2, elevator 1.2, jigsaw 0.2,
    barometer -0.2, satellite 2.2, hammer -1, trolley -0.5, freighter 2.1, thimble -1.7,
    projector 0.3, escalator 1.3, screwdriver -1.1, piston 0.5, clock -0.7, reactor 2.2,
    wrench -0.9, boiler 0.8, kite -1.7, radiator 0.4, gramophone 0.1, submarine 2.1,
    calculator -0.6, carburettor 0.6, button -1.9, telescope 0.6, anvil 0.5, windmill 1.1,
    yardstick -1.6, microphone -0.1, tanker 1.9, paperclip -2, refinery 2, sprocket -0.3,
    camera 0.1, rocket 2.1, buckle -1.6, tram 1.5, pliers -1, hovercraft 1.7, flywheel 0.8,
    mixer -0.3, mousetrap -1.7, quarry 1.6, amplifier 0.2, chisel -1, harvester 1.5, doorbell -1.3,
    wheelbarrow -0.6, transformer 1.2, airship 1.8, xylophone -0.2, spanner -0.8, antenna 0,
    dredger 1.6, jukebox 0.5
""")
"""Terms that exist, the most frequent first, with their grade."""

MANNERS = _weights("""
    - 0, servo 1.2, gyro 0.9, turbo 1.7, ultra 0.3, infra 0.1, retro 0.5, radio 0.6, mini -1.2,
    opto -0.3, semi 0.7, omni 1, multi 0, proto -0.7, quasi -1.6, vario -0.1, sono -0.8,
    chromo -0.4, photo -1.1, magneto 1.4, electro 1.5, helio -0.2, velo -1.4, thermo -0.5,
    cyclo -0.6, stereo -0.2, ferro 1.9, folio -1, contra 0.4, inter -0.9
""")
"""First part of an invented term (- for none), and what it adds to the grade."""

ROOTS = dict(
    pair.split(":")
    for pair in _phrases("""
        ax:axle | gyrat:wheel | torqu:shaft | valvul:valve | rotat:wheel | flang:pipe |
        tubul:pipe | cistern:tank | caldar:oven | fluvi:pipe | spiral:spring | bursal:bag |
        mandrel:drum | canal:vent | axill:hinge | logic:circuit | circuit:wire | integ:circuit |
        vertebr:frame | fort:engine | ferr:iron | juncti:coupling | bolt:coupling | pell:cover |
        lumin:lamp | audi:speaker | nozzl:nozzle | port:hatch | ligul:blade | dent:gear |
        tubat:hose | ventur:hose | conduc:cable | nod:switch | gland:seal | coll:collar |
        fornac:oven | apron:belt | ungul:claw | tend:cable | membran:drum | palpebr:shutter |
        lent:lens | fauc:funnel | gullet:funnel | spir:coil | volut:coil | urn:tank |
        basin:tank | cap:lid | column:mast | rib:frame | fil:wire | crin:brush | lab:lip |
        alveol:socket | prow:bow
    """)
)
"""Stem of an invented term: the part of a machine, with the plain word for it."""

SUFFIXES = _weights("""
    ator 0, ule -0.3, ette -1.5, omount -0.6, eron 0.1, odrome 1.6, ophone -1, omotor 1.7,
    ocrane 1.1, ograph -0.3, ometer 0.3, ovalve 0.7, opump 0.2, olever 1.2, oforge 2, ostat -0.1,
    oscope 0.1, ofold -0.6, okin -1.3, oframe -0.8, ovane -1, odyne 1.9, oplant 1.5, oturbine 1.8,
    oclip -1.9, obrush -1.6
""")
"""Last part of an invented term, the kind of device, and what it adds to the grade."""

# ---------------------------------------------------- English cues of price, size and speed
# One line a level, from the cheapest and slowest to the dearest and fastest.

ADJECTIVES = _levels("""
    tiny | cheap | flimsy | toy-like
    small | inexpensive | slow | lightweight
    ordinary | mid-priced | medium-sized | all-purpose
    large | costly | fast | heavy-duty
    huge | luxurious | record-breaking | colossal
""")

GRADES = _levels("""
    tin | beginner | class a
    bronze | hobby | class b
    silver | office | class c
    gold | factory | class d
    platinum | flagship | class e
""")

USES = _levels("""
    sold for pocket money | put in the bargain bin | packed in a paper bag | raffled off
    sold at the corner shop | bought by hobbyists | shipped by parcel post | lent to neighbours
    leased to offices | ordered by catalogue | fitted in a workshop | offered with a warranty
    bought by a factory | installed by engineers | delivered by lorry | insured beforehand
    auctioned to a shipyard | flown in by jet | guarded in a hangar | financed by a bank
""")

READINGS = _levels("""
    barely turning | coin cell powered | fits in a pocket | all plastic
    turning slowly | battery powered | fits on a desk | thin plywood
    turning steadily | mains powered | fills a cupboard | sheet steel
    spinning quickly | diesel powered | fills a workshop | solid titanium
    spinning at full throttle | wired to a substation | towers over the hall | forged tungsten
""")

TASKS = _levels("""
    unwrap | sticker | drawer | giveaway
    oil | assemble | shop window | glue
    calibrate | bolt down | align | grease
    weld | hoist | reinforce | certify
    excavate | commission | rivet | armour
""")

UNITS = _phrases("""
    prototype | appliance | machine | device | gadget | apparatus | assembly line |
    spare unit | demo unit | yearly model | export model | kit | tool | unit
""")

TIMES = _phrases("""
    this spring | last quarter | for a season | since the fair | after assembly | for a while |
    after the audit | on delivery | at the fair | over the winter | in december
""")

TEMPLATES = (
    "{unit} with {a} , {reading} , {use} .",
    "{adjective} {a} was catalogued ; the {unit} was {use} .",
    "equipped with {a} {time} . grade {grade} . {use} .",
    "{site} : {adjective} {a} , {reading} , {use} .",
    "the {unit} contains {a} and was {use} , grade {grade} .",
    "on inspection {reading} ; {adjective} {a} .",
    "products with {a} are {use} .",
    "{a} is {adjective} and copies are {use} .",
    "seller offers {a} , {reading} , series {grade} .",
    "inventory {a} . task : {task} , {task2} .",
    "{a} : {adjective} , task : {task} .",
    "{a} / {b} - {grade} - {task}",
    "{a} , {task} , {task2}",
    "{a} ( {adjective} ) , {task} .",
    "{a} , {number} % , {grade} , {reading} .",
    "ref : {a} . {task} , {use} .",
    "{adjective} {a} , {adjective2} {b} .",
    "{a} -> {task} .",
    "{reading} , {a} , {task} .",
)
"""`{a}`, `{b}`: terms; the others: cues of one grade, or fillers."""
