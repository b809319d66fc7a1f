"""English words, by what they are in a sentence."""

from __future__ import annotations

_NOUNS = """
    able acid apple april arm army atom aunt baby back ball band bank barn basin basket bath beach bean bear bed bell
    belt bench bird blade block board boat body bone book boot bottle bowl box branch brass bread breath brick bridge
    brush bucket bulb butter button cake camera card carpet carriage cart castle cat chain cheese chest chin church
    circle clock cloth cloud coat collar comb cord corner cotton cow cup curtain cushion daisy desk dinner dog door
    drain drawer dress drop ear earth east egg engine eye face farm feather field finger fire fish flag floor flower
    fly fork forest fox frame friend fruit garden garlic ghost girl glass glove goat gold grain grass gun hair hammer
    hand harbour hat head heart hill hook horn horse hospital hour house ice ink iron island jar jewel juice jungle
    kettle key kitchen knee knife knot lake lamp leaf leather leg lemon letter library light lime line lion lip lock
    map market meal metal milk mill mint monkey month moon morning mouth music nail neck needle nest net night north
    nose nut oak ocean office oil olive onion orange oven owl paint paper park pearl pen pencil pepper piano picture
    pig pin pipe planet plate pocket pond pot potato prison pump queen rail rain rat rice ring river road roof room
    root rope rose sail salt sand school scissors screw sea seat seed shelf ship shirt shoe silk silver sister skin
    skirt snake snow soap sock soup south spade sponge spoon spring square stamp star station stem stick stone store
    street sugar sun table tail tent thread throat thumb ticket tiger toe tongue tooth tower town train tray tree
    trousers tulip turtle umbrella valley vase village violin wall watch water wave wheel whistle willow window wine
    wing winter wire wolf wood wool worm yard zebra
"""
_ADJECTIVES = """
    ancient angry bitter black blue brave bright broken brown busy calm careful cheap clean clever cold cool cruel dark
    deep dirty dry dull early easy empty famous fast fine flat foreign free fresh gentle golden grand great green grey
    happy hard heavy high hollow honest hot huge humble hungry kind large late lazy little lonely long loud lucky modern
    narrow neat new noble old open orange pale plain pleasant polite poor pretty proud pure purple quick quiet rare red
    rich ripe rough round royal sad safe sharp short silent simple slow small smooth soft solid strange strong sudden
    sweet tall thick thin tiny tired useful warm weak wet white wide wild wise wooden yellow young
"""
_VERBS = """
    admired avoided borrowed bought broke brought built buried carried caught chased chose cleaned closed copied
    counted covered crossed described discovered dropped fed felt filled finished fixed followed forgot found gave
    gathered guarded heard held helped hid hired joined kept kicked knew learned left lifted liked loved made met missed
    moved named needed noticed opened ordered packed painted passed picked pulled pushed raised reached read remembered
    repaired rescued saved saw sold sent served shared showed studied threw took touched tried turned used visited
    wanted washed watched wrapped
"""
NOUNS: tuple[str, ...] = tuple(_NOUNS.split())
ADJECTIVES: tuple[str, ...] = tuple(_ADJECTIVES.split())
VERBS: tuple[str, ...] = tuple(_VERBS.split())
